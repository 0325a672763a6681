//! What is received as a file lies in the vault's folder first, until all of it is there: uploads can be cut off and go on.
//!
//! ```text
//! begin -> append at the offset where it ends … -> complete -> (taken into a machine) -> discard
//!               | cut off, at any time
//!               +-> length: where to go on
//! ```
//!
//! After every 64 MiB, and when a pause is made, what came is brought to the medium and noted down. When the service starts again, an
//! upload is cut to what is noted down, since nobody knows what a loss of power left of the rest.
//!
//! Absent: what is in the files. See [`rbd`](super::rbd).

use super::digest::Sum;
use super::files::{self, DIR};
use crate::moment::Moment;
use crate::name::Name;
use crate::vault::storage::{Storage, StoredFile};
use landfall_image::{Bytes, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// Uploads at once: a bound on files, and on what a start has to look at. A vault of 1,500 disks gets as many diffs at the full hour.
const UPLOADS_AT_MOST: usize = 4096;
/// What came is brought to the medium after so many bytes.
const SYNC_EVERY: u64 = 64 << 20;
/// Bytes of the name that a client gives to it.
const NAME_AT_MOST: usize = 255;

/// What an upload is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Request {
    /// The machine that it is for.
    pub machine: Name,
    /// The disk of it.
    pub disk: Name,
    /// What it is called where it comes from, for people: `db-2026-01-31.diff`.
    pub name: String,
    /// SHA-256 of all of it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sum>,
    /// It takes the place of all that the disk holds.
    #[serde(default)]
    pub replace: bool,
    /// The machine has other disks, which stay as they are: they are not of the same moment, and whoever sends it knows that.
    #[serde(default)]
    pub apart: bool,
    /// The moment that it is of, where that is known. The point gets this time, unless it lies before the newest point's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Moment>,
}

/// An upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Upload {
    /// Its number.
    pub id: Uuid,
    /// What it is.
    pub request: Request,
    /// Bytes that are there: where the next go.
    pub length: u64,
    /// All of it is there.
    pub is_complete: bool,
}

#[derive(Debug)]
struct Open {
    upload: Upload,
    file: Arc<dyn StoredFile>,
    /// Bytes that are noted down as being on the medium.
    durable: u64,
}

/// The uploads of a vault.
#[derive(Debug)]
pub struct Spool {
    storage: Arc<dyn Storage>,
    uploads: Mutex<BTreeMap<Uuid, Arc<Mutex<Open>>>>,
}

fn note(id: Uuid) -> String {
    format!("{id}.upload")
}

fn data(id: Uuid) -> String {
    format!("{DIR}/{id}.data")
}

/// An upload as an earlier run has left it.
fn found(storage: &dyn Storage, name: &str) -> Result<Open> {
    let upload: Upload = files::read(storage, &format!("{name}.upload"))?;
    let file = storage.open(&data(upload.id))?;
    let (len, durable) = (file.len()?, upload.length);
    if len < durable || upload.id.to_string() != name {
        return Err(Error::corrupt(format!("has {len} bytes, and {durable} were on the medium"))
            .in_file(&storage.place(&format!("{DIR}/{name}.data"))));
    }
    file.set_len(durable)?;
    Ok(Open { upload, file, durable })
}

impl Spool {
    /// The spool of the vault whose files `storage` has, and what is wrong with uploads that are not in it for that: their files stay as
    /// they are.
    ///
    /// # Errors
    /// As the storage's.
    pub fn open(storage: &Arc<dyn Storage>) -> Result<(Spool, Vec<Error>)> {
        storage.make_dir(DIR)?;
        let mut uploads = BTreeMap::new();
        let (mut troubles, mut troubled) = (Vec::new(), BTreeSet::new());
        for name in files::list(&**storage, ".upload")? {
            match found(&**storage, &name) {
                Ok(open) => {
                    uploads.insert(open.upload.id, Arc::new(Mutex::new(open)));
                }
                Err(error) => {
                    troubles.push(error.hint(format!(
                        "remove {} and the file that ends in .upload, and send it again",
                        storage.place(&format!("{DIR}/{name}.data")).display()
                    )));
                    troubled.insert(name);
                }
            }
        }
        // A beginning or an end that was cut off.
        for name in files::list(&**storage, ".data")? {
            if !troubled.contains(&name) && !name.parse().is_ok_and(|id: Uuid| uploads.contains_key(&id)) {
                storage.remove(&format!("{DIR}/{name}.data"))?;
            }
        }
        Ok((Spool { storage: Arc::clone(storage), uploads: Mutex::new(uploads) }, troubles))
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// Refused where there are too many, or its name is none that can be shown; as the storage's.
    pub fn begin(&self, request: Request) -> Result<Upload> {
        let name = &request.name;
        if name.len() > NAME_AT_MOST || name.chars().any(char::is_control) {
            return Err(Error::refused("the name of the upload cannot be shown")
                .hint(format!("give it a name of up to {NAME_AT_MOST} bytes without control characters")));
        }
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if uploads.len() >= UPLOADS_AT_MOST {
            return Err(Error::refused(format!("{UPLOADS_AT_MOST} uploads are there, which are the most"))
                .hint("finish or discard some of them"));
        }
        let upload = Upload { id: Uuid::new_v4(), request, length: 0, is_complete: false };
        let file = self.storage.create(&data(upload.id))?;
        file.sync()?;
        files::write(&*self.storage, &note(upload.id), &upload)?;
        let open = Open { upload: upload.clone(), file, durable: 0 };
        uploads.insert(upload.id, Arc::new(Mutex::new(open)));
        Ok(upload)
    }

    fn of(&self, id: Uuid) -> Result<Arc<Mutex<Open>>> {
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.get(&id).cloned().ok_or_else(|| {
            Error::refused(format!("there is no upload {id}"))
                .hint("it was taken, discarded, or never begun; begin it again")
        })
    }

    fn with<T>(&self, id: Uuid, work: impl FnOnce(&mut Open) -> Result<T>) -> Result<T> {
        let open = self.of(id)?;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut open)
    }

    /// Adds bytes, which are those from `at` on. Returns how many there are then.
    ///
    /// # Errors
    /// Refused where it does not end at `at`, or is complete; as the storage's: then nothing was added.
    pub fn append(&self, id: Uuid, at: u64, bytes: &[u8]) -> Result<u64> {
        self.with(id, |open| {
            if open.upload.is_complete || open.upload.length != at {
                let says = match open.upload.is_complete {
                    true => format!("the upload is complete with {} bytes", open.upload.length),
                    false => format!("the upload goes on at byte {}, not at {at}", open.upload.length),
                };
                return Err(Error::refused(says).hint("ask for its length, and go on from there"));
            }
            open.file.write_at(at, &[bytes])?;
            open.upload.length += bytes.len() as u64;
            if open.upload.length - open.durable >= SYNC_EVERY {
                self.bring_to_medium(open)?;
            }
            Ok(open.upload.length)
        })
    }

    fn bring_to_medium(&self, open: &mut Open) -> Result<()> {
        let done =
            open.file.sync().and_then(|()| files::write(&*self.storage, &note(open.upload.id), &open.upload));
        match done {
            Ok(()) => open.durable = open.upload.length,
            // A file system forgets what it failed to write, and the next sync would succeed (`fsync` of Linux): it is sent again.
            Err(_) => {
                open.upload.length = open.durable;
                open.upload.is_complete = false;
            }
        }
        done
    }

    /// Brings what came to the medium: the client was cut off, or makes a pause.
    ///
    /// # Errors
    /// As the storage's.
    pub fn pause(&self, id: Uuid) -> Result<Upload> {
        self.with(id, |open| {
            if open.durable < open.upload.length {
                self.bring_to_medium(open)?;
            }
            Ok(open.upload.clone())
        })
    }

    /// That all of it is there, `length` bytes.
    ///
    /// # Errors
    /// Refused where it is of another length; as the storage's.
    pub fn complete(&self, id: Uuid, length: u64) -> Result<Upload> {
        self.with(id, |open| {
            if open.upload.length != length {
                return Err(Error::refused(format!(
                    "{} of {length} bytes of the upload are here",
                    open.upload.length
                ))
                .hint("ask for its length, and go on from there"));
            }
            open.upload.is_complete = true;
            self.bring_to_medium(open)?;
            Ok(open.upload.clone())
        })
    }

    /// The uploads that there are.
    pub fn uploads(&self) -> Vec<Upload> {
        let all: Vec<_> = {
            let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.values().cloned().collect()
        };
        all.iter().map(|open| open.lock().unwrap_or_else(PoisonError::into_inner).upload.clone()).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// Refused where there is none of that number.
    pub fn upload(&self, id: Uuid) -> Result<Upload> {
        self.with(id, |open| Ok(open.upload.clone()))
    }

    /// The bytes of one that is complete.
    ///
    /// # Errors
    /// Refused where it is not.
    pub fn content(&self, id: Uuid) -> Result<Content> {
        self.with(id, |open| match open.upload.is_complete {
            true => Ok(Content { file: Arc::clone(&open.file), at: 0, end: open.upload.length }),
            false => Err(Error::refused(format!(
                "the upload {:?} is not complete: {} are here",
                open.upload.request.name,
                Bytes(open.upload.length)
            ))
            .hint("send the rest first")),
        })
    }

    /// Takes all of a reader in as one upload.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and the reader's; then nothing is left of it.
    pub fn take(&self, request: Request, from: &mut dyn io::Read) -> Result<Upload> {
        let upload = self.begin(request)?;
        let mut buf = vec![0; 1 << 20];
        let mut at = 0;
        let taken = loop {
            match from.read(&mut buf) {
                Ok(0) => break self.complete(upload.id, at),
                Ok(count) => match self.append(upload.id, at, &buf[..count]) {
                    Ok(length) => at = length,
                    Err(error) => break Err(error),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(Error::io("cannot read what is to be received", error)),
            }
        };
        if taken.is_err() {
            self.discard(upload.id)?;
        }
        taken
    }

    /// Removes one, taken or not.
    ///
    /// # Errors
    /// As the storage's.
    pub fn discard(&self, id: Uuid) -> Result<()> {
        let removed = {
            let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.remove(&id)
        };
        if removed.is_some() {
            files::remove(&*self.storage, &note(id))?;
            self.storage.remove(&data(id))?;
        }
        Ok(())
    }

    /// Where its bytes lie, for people.
    pub fn place(&self, id: Uuid) -> std::path::PathBuf {
        self.storage.place(&data(id))
    }
}

/// The bytes of an upload, in order.
#[derive(Debug)]
pub struct Content {
    file: Arc<dyn StoredFile>,
    at: u64,
    end: u64,
}

impl io::Read for Content {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        if len > 0 {
            let failed = |error: Error| {
                let kind = error.io_error().map_or(io::ErrorKind::Other, io::Error::kind);
                io::Error::new(kind, error.to_string())
            };
            self.file.read_at(self.at, &mut buf[..len]).map_err(failed)?;
            self.at += len as u64;
        }
        Ok(len)
    }
}
