//! The files of a mounted guest, through the agent.
//!
//! A root may have others beside it, each under a name of the form `/:esp` ([`beside`]): file systems that the guest knows
//! under no path, such as the one that Windows starts from. No file of Windows can have such a name.

use super::{CALL_WITHIN, Session, lock};
use crate::host_file::Digested;
use crate::sandbox::machine::{Port, unexpected};
use crate::sandbox::protocol::{self, Failure, LISTING_AT_MOST, Listing, PIECE, Reply, Request};
use crate::tree::{Entry, GuestTree, Meta};
use crate::{Error, Result};
use landfall_image::Bytes;
use std::time::Duration;

/// Content moves at 50 MiB/s under emulation; a hundredth of it is a machine in trouble.
pub(super) const BYTES_PER_SECOND: u64 = 512 << 10;

/// Bytes of paths in one request.
const PATHS_AT_MOST: usize = 64 << 10;

/// Name and rest of a path of the form `/:name/rest`.
pub(super) fn beside(path: &str) -> Option<(&str, &str)> {
    let name = path.strip_prefix("/:")?;
    let (name, rest) = name.split_at(name.find('/').unwrap_or(name.len()));
    let is_name = (1..=16).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase());
    is_name.then_some((name, if rest.is_empty() { "/" } else { rest }))
}

/// The files of one root of a session. Answers are remembered until something is changed.
pub struct SandboxTree<'a> {
    pub(super) session: &'a Session,
    pub(super) root: String,
}

impl SandboxTree<'_> {
    /// The first `len` bytes of a file (128 KiB at most), however long that is.
    pub fn head(&self, path: &str, len: usize) -> Result<Option<Vec<u8>>> {
        let doing = format!("read {path}");
        let len = len.min(PIECE);
        let (root, path) = self.session.place(&self.root, path);
        let request = Request::Head { root, path, len: u32::try_from(len).unwrap_or(u32::MAX) };
        self.session.with_port(&doing, CALL_WITHIN, |port| {
            port.send(&doing, &request)?;
            content(port, &doing, len as u64)
        })
    }

    fn meta(&self, path: &str, follow: bool) -> Result<Option<Meta>> {
        let key = (self.root.clone(), path.to_owned(), follow);
        if let Some(known) = lock(&self.session.known).metadata.get(&key) {
            return Ok(*known);
        }
        let (root, inner) = self.session.place(&self.root, path);
        let request = Request::Metadata { root, path: inner, follow };
        let meta = match self.session.ask(&format!("look at {path}"), CALL_WITHIN, &request)? {
            Reply::Meta(meta) => Some(meta),
            Reply::Absent => None,
            other => return Err(unexpected(&other)),
        };
        lock(&self.session.known).metadata.insert(key, meta);
        Ok(meta)
    }

    fn read_some(&self, paths: &[String], at_most: Bytes) -> Result<Vec<Option<Vec<u8>>>> {
        let Some(first) = paths.first() else { return Ok(Vec::new()) };
        let doing = format!("read {first}");
        let within = CALL_WITHIN + Duration::from_secs(at_most.0.min(1 << 40) / BYTES_PER_SECOND);
        // All of one root: the caller sees to it.
        let (root, _) = self.session.place(&self.root, first);
        let inner = paths.iter().map(|path| self.session.place(&self.root, path).1).collect();
        let request = Request::Read { root, paths: inner, at_most: at_most.0 };
        self.session.with_port(&doing, within, |port| {
            port.send(&doing, &request)?;
            let mut contents = Vec::new();
            let mut failed = None;
            // After a failure the rest of the answers must be heard, too.
            for _ in paths {
                match content(port, &doing, at_most.0)? {
                    Ok(content) => contents.push(content),
                    Err(failure) => failed = failed.or(Some(failure)),
                }
            }
            Ok(failed.map_or(Ok(contents), Err))
        })
    }
}

/// One file or listing off the port.
pub(in crate::sandbox) fn content(
    port: &mut Port<'_>,
    doing: &str,
    at_most: u64,
) -> Result<std::result::Result<Option<Vec<u8>>, Failure>> {
    let mut bytes = Vec::new();
    let got = pieces(port, doing, at_most, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(got.map(|there| there.map(|()| bytes)))
}

/// The same, given to `take` as it comes.
fn pieces(
    port: &mut Port<'_>,
    doing: &str,
    at_most: u64,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<std::result::Result<Option<()>, Failure>> {
    match port.receive(doing)? {
        Reply::Absent => return Ok(Ok(None)),
        Reply::Failed(failure) => return Ok(Err(failure)),
        Reply::Content => {}
        other => return Err(unexpected(&other)),
    }
    let (mut len, mut piece) = (0u64, Vec::new());
    while protocol::receive_piece(port, &mut piece).map_err(|e| port.error(doing, e))? {
        len = len.saturating_add(piece.len() as u64);
        if len > at_most {
            return Err(Error::refused(format!(
                "the sandbox sends more than the {} that were asked for ({doing})",
                Bytes(at_most)
            )));
        }
        take(&piece)?;
    }
    match port.receive(doing)? {
        Reply::Done => Ok(Ok(Some(()))),
        Reply::Failed(failure) => Ok(Err(failure)),
        other => Err(unexpected(&other)),
    }
}

impl GuestTree for SandboxTree<'_> {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.meta(path, true)
    }

    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.meta(path, false)
    }

    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        Ok(self.read_some(&[path.to_owned()], at_most)?.pop().flatten())
    }

    fn sha256(&self, path: &str, at_most: Bytes) -> Result<Option<(Bytes, String)>> {
        let doing = format!("read {path}");
        let within = CALL_WITHIN + Duration::from_secs(at_most.0.min(1 << 40) / BYTES_PER_SECOND);
        let (root, inner) = self.session.place(&self.root, path);
        let request = Request::Read { root, paths: vec![inner], at_most: at_most.0 };
        let mut digest = Digested::default();
        let there = self.session.with_port(&doing, within, |port| {
            port.send(&doing, &request)?;
            pieces(port, &doing, at_most.0, &mut |piece| digest.add(piece))
        })?;
        Ok(there.map(|()| digest.finish()))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        let key = (self.root.clone(), path.to_owned());
        if let Some(known) = lock(&self.session.known).listings.get(&key) {
            return Ok(known.clone());
        }
        let doing = format!("list {path}");
        let (root, inner) = self.session.place(&self.root, path);
        let request = Request::List { root, path: inner };
        let bytes = self.session.with_port(&doing, CALL_WITHIN, |port| {
            port.send(&doing, &request)?;
            // Twice, since their form on the wire is not quite what the agent counted.
            content(port, &doing, 2 * LISTING_AT_MOST as u64)
        })?;
        let listing = bytes
            .map(|bytes| postcard::from_bytes::<Listing>(&bytes))
            .transpose()
            .map_err(|e| Error::corrupt(format!("the sandbox's listing of {path} cannot be read: {e}")))?;
        lock(&self.session.known).listings.insert(key, listing.clone());
        Ok(listing)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>> {
        let (root, inner) = self.session.place(&self.root, path);
        let request = Request::ReadLink { root, path: inner };
        match self.session.ask(&format!("read the link {path}"), CALL_WITHIN, &request)? {
            Reply::Link(target) => Ok(Some(target)),
            Reply::Absent => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    fn free_space(&self, path: &str) -> Result<Option<Bytes>> {
        let (root, inner) = self.session.place(&self.root, path);
        let request = Request::FreeSpace { root, path: inner };
        match self.session.ask(&format!("ask for the free space at {path}"), CALL_WITHIN, &request)? {
            Reply::Space(bytes) => Ok(Some(Bytes(bytes))),
            other => Err(unexpected(&other)),
        }
    }

    fn read_many(&self, paths: &[String], at_most: Bytes) -> Result<Vec<Option<Vec<u8>>>> {
        let mut contents = Vec::new();
        let mut rest = paths;
        while let Some(first) = rest.first() {
            // As many as fit into one request and lie in the same root, one at least.
            let root = self.session.place(&self.root, first).0;
            let mut len = 0usize;
            let fit = rest.iter().take_while(|path| {
                len = len.saturating_add(path.len()).saturating_add(8);
                len <= PATHS_AT_MOST && self.session.place(&self.root, path).0 == root
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            contents.extend(self.read_some(now, at_most)?);
            rest = later;
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_lead_to_roots_beside() {
        assert_eq!(beside("/:esp/EFI/Boot"), Some(("esp", "/EFI/Boot")));
        assert_eq!(beside("/:boot"), Some(("boot", "/")));
        assert_eq!(beside("/:boot/"), Some(("boot", "/")));
        for path in ["/", "/esp", "/:", "/:/x", "/a/:esp", "/:ESP", "/:e.p/x", "/:abcdefghijklmnopq", ":esp"]
        {
            assert_eq!(beside(path), None, "{path}");
        }
    }
}
