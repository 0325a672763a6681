//! Every initramfs of a plan, rewritten: several at a time, read one after the other as they are wanted.
//!
//! ```text
//! this thread: read, gather modules -> at most one waits -> workers: unpack, edit, pack -> new bytes
//! ```
//! In memory at once are the new files, and the old and unpacked content of [`AT_ONCE`] of them. Deliberately absent: an
//! answer to a /boot that is too small for what a rewrite must hold; that is refused.

use super::{OVERHEAD, sha1};
use crate::linux::initramfs::{self, Effort, Gathered, Rewritten, limits};
use crate::linux::loader::uki;
use crate::patch::{Action, InitramfsEdit, PatchPlan};
use crate::tree::GuestTree;
use crate::{Error, Kind, Result};
use landfall_image::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Files rewritten at once: each has its unpacked content in memory.
const AT_ONCE: usize = 4;

/// What became of one initramfs.
pub(super) enum Outcome {
    Rewritten(Box<Archive>),
    /// It stays as it is.
    Left(Error),
}

/// One initramfs, rewritten.
pub(super) struct Archive {
    pub(super) path: String,
    pub(super) kernel: String,
    pub(super) old_sha1: String,
    pub(super) new: Rewritten,
}

/// One initramfs to rewrite.
struct Job<'a> {
    index: usize,
    path: &'a str,
    edit: &'a InitramfsEdit,
    bytes: Vec<u8>,
    gathered: Arc<Gathered>,
}

/// An initramfs of the plan: its path and edit.
type Wanted<'a> = (&'a str, &'a InitramfsEdit);

/// Every initramfs of the plan, in its order, as small as it takes to find room for it.
///
/// # Errors
/// Where one of the kernel that starts by default cannot be rewritten, where the guest cannot be read, and where the new
/// files have no room even in place of the old ones.
pub(super) fn rewrite(plan: &PatchPlan, tree: &dyn GuestTree) -> Result<Vec<Outcome>> {
    let wanted: Vec<Wanted<'_>> = plan
        .edits
        .iter()
        .filter_map(|edit| match &edit.action {
            Action::Initramfs(action) => Some((edit.path.as_str(), action)),
            _ => None,
        })
        .collect();
    let mut copies = Vec::new();
    for edit in &plan.edits {
        if let Action::Copy { from } = &edit.action
            && let Some(meta) = tree.metadata(from)?
        {
            copies.push((edit.path.as_str(), meta.size));
        }
    }
    let mut outcomes = Vec::new();
    for effort in [Effort::Quick, Effort::Small, Effort::Smallest] {
        outcomes = rewrite_all(&wanted, tree, effort)?;
        if short_of_space(&outcomes, &copies, tree, false)?.is_none() {
            return Ok(outcomes);
        }
    }
    match short_of_space(&outcomes, &copies, tree, true)? {
        None => Ok(outcomes),
        Some(Lacking { path, needed, free }) => Err(Error::refused(format!(
            "the new file needs {needed}, its file system has {free} free"
        ))
        .in_file(Path::new(&path))
        .hint(
            "remove old kernels from the guest, or give its /boot (or its EFI system partition) more space",
        )),
    }
}

/// True where an archive may stay as it is because of this error: it belongs to another kernel than the one that starts.
fn may_stay(edit: &InitramfsEdit, error: &Error) -> bool {
    !edit.starts_by_default && !matches!(error.kind(), Kind::Io | Kind::Interrupted)
}

fn rewrite_all(wanted: &[Wanted<'_>], tree: &dyn GuestTree, effort: Effort) -> Result<Vec<Outcome>> {
    let processors = initramfs::threads();
    let workers = wanted.len().min(AT_ONCE).min(usize::try_from(processors).unwrap_or(1)).max(1);
    // One archive gets every processor, several share them.
    let threads = (processors / u32::try_from(workers).unwrap_or(1)).max(1);
    let (send, receive) = mpsc::sync_channel::<Job<'_>>(0);
    let receive = Mutex::new(receive);
    let done: Mutex<BTreeMap<usize, Result<Outcome>>> = Mutex::default();
    let finish = |index: usize, outcome: Result<Outcome>| {
        done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, outcome);
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = next else { break };
                    let index = job.index;
                    finish(index, rewrite_one(job, effort, threads));
                }
            });
        }
        let mut last = None;
        for (index, wanted) in wanted.iter().enumerate() {
            match read(index, *wanted, tree, &mut last) {
                // Nobody takes it where every worker has panicked.
                Ok(job) => drop(send.send(job)),
                // What this reader does not know, another one may.
                Err(error) if error.kind() != Kind::Unsupported && may_stay(wanted.1, &error) => {
                    finish(index, Ok(Outcome::Left(error)));
                }
                Err(error) => {
                    drop(send);
                    return Err(error);
                }
            }
        }
        drop(send);
        Ok(())
    })?;
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if done.len() != wanted.len() {
        return Err(Error::refused("rewriting an initramfs panicked"));
    }
    let outcomes: Vec<Outcome> = done.into_values().collect::<Result<_>>()?;
    let total: u64 = outcomes.iter().map(|outcome| outcome.new_size().0).fold(0, u64::saturating_add);
    if total > limits::ARCHIVES.0 {
        return Err(Error::refused(format!(
            "the initramfs files of all kernels have {} together, more than {}",
            Bytes(total),
            limits::ARCHIVES
        ))
        .hint("remove old kernels from the guest"));
    }
    Ok(outcomes)
}

/// An initramfs and its kernel's modules, which several files of one kernel share.
fn read<'a>(
    index: usize,
    (path, edit): Wanted<'a>,
    tree: &dyn GuestTree,
    last: &mut Option<(&'a InitramfsEdit, Arc<Gathered>)>,
) -> Result<Job<'a>> {
    let bytes = tree
        .read(path, limits::ARCHIVE)
        .and_then(|bytes| bytes.ok_or_else(|| Error::new(Kind::Io, "the initramfs does not exist")));
    let bytes = bytes.map_err(|e| e.in_file(Path::new(path)))?;
    let gathered = match last {
        Some((same, gathered)) if *same == edit => Arc::clone(gathered),
        _ => Arc::new(initramfs::gather(edit, tree)?),
    };
    *last = Some((edit, Arc::clone(&gathered)));
    Ok(Job { index, path, edit, bytes, gathered })
}

fn rewrite_one(job: Job<'_>, effort: Effort, threads: u32) -> Result<Outcome> {
    let rewrite = |archive: &[u8]| job.gathered.rewrite(archive, effort, threads);
    match uki::rewrite(&job.bytes, rewrite).map_err(|e| e.in_file(Path::new(job.path))) {
        Ok(new) => Ok(Outcome::Rewritten(Box::new(Archive {
            path: job.path.into(),
            kernel: job.edit.kernel.clone(),
            old_sha1: sha1(&job.bytes),
            new,
        }))),
        Err(error) if may_stay(job.edit, &error) => Ok(Outcome::Left(error)),
        Err(error) => Err(error),
    }
}

impl Outcome {
    fn new_size(&self) -> Bytes {
        match self {
            Outcome::Rewritten(archive) => archive.new.new_size,
            Outcome::Left(_) => Bytes(0),
        }
    }
}

/// A file that has no room.
struct Lacking {
    path: String,
    needed: Bytes,
    free: Bytes,
}

/// The first file that would not fit. Each is written beside its predecessor, which then goes; where there is no room for
/// both and `in_place`, over it (see [`Put`](super::Change::Put)).
fn short_of_space(
    outcomes: &[Outcome],
    copies: &[(&str, Bytes)],
    tree: &dyn GuestTree,
    in_place: bool,
) -> Result<Option<Lacking>> {
    // Space that earlier files took (or gave back), by file system. Which one a folder lies on is not known, but two that
    // have the same space to the byte are the same one; if they are not, the check is only stricter.
    let mut taken: BTreeMap<Bytes, i128> = BTreeMap::new();
    let copies = copies.iter().map(|(path, size)| (*path, Bytes(0), *size));
    let archives = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Rewritten(archive) if archive.new.changed => {
            Some((archive.path.as_str(), archive.new.old_size, archive.new.new_size))
        }
        _ => None,
    });
    for (path, old, new) in copies.chain(archives) {
        let Some(free) = free_space_for(path, tree)? else { continue };
        let taken = taken.entry(free).or_default();
        let (old, wanted) = (i128::from(old.0), i128::from(new.0));
        let fits_beside = *taken + wanted <= i128::from(free.0);
        let fits_over = in_place && *taken + wanted - old + i128::from(OVERHEAD.0) <= i128::from(free.0);
        if !fits_beside && !fits_over {
            return Ok(Some(Lacking { path: path.to_owned(), needed: new, free }));
        }
        *taken += wanted - old;
    }
    Ok(None)
}

/// Free space where a file will lie: that of the nearest folder above it that exists.
fn free_space_for(path: &str, tree: &dyn GuestTree) -> Result<Option<Bytes>> {
    let mut folder = path;
    while let Some((above, _)) = folder.rsplit_once('/') {
        folder = above;
        let at = if folder.is_empty() { "/" } else { folder };
        if tree.metadata(at)?.is_some() {
            return tree.free_space(at);
        }
    }
    Ok(None)
}
