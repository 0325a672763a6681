//! Changes of a mounted guest's files, through the agent. Content goes over as a stream of pieces: of what comes from a file of the
//! host neither side ever holds more than one.

use super::{CALL_WITHIN, Session, tree};
use crate::Result;
use crate::apply::Change;
use crate::sandbox::machine::unexpected;
use crate::sandbox::protocol::{self, PIECE, Reply, Request};
use std::time::Duration;

/// Takes pieces of a file.
type Send<'s> = dyn FnMut(&[u8]) -> Result<()> + 's;

impl Session {
    /// Makes the changes, in their order. The first that fails ends it; of that file the old content is still there, unless
    /// it is written over ([`Change::Put`]).
    /// Returns the paths that were marked as not to be changed (`chattr +i`), or whose folder was.
    pub fn apply(&self, root: &str, changes: &[Change]) -> Result<Vec<String>> {
        self.forget();
        let mut immutable = Vec::new();
        for change in changes {
            if self.apply_one(root, change)? {
                immutable.push(change.path().to_owned());
            }
        }
        Ok(immutable)
    }

    fn apply_one(&self, root: &str, change: &Change) -> Result<bool> {
        let asked = change.path();
        let (root, path) = self.place(root, asked);
        match change {
            Change::Put { bytes, mode, .. } => {
                let request = Request::Put { root, path, mode: *mode, size: bytes.len() as u64 };
                self.put(asked, &request, bytes.len() as u64, &mut |send| {
                    bytes.chunks(PIECE).try_for_each(send)
                })
            }
            Change::Stage { file, mode, .. } => {
                let request = Request::Put { root, path, mode: *mode, size: file.size.0 };
                self.put(asked, &request, file.size.0, &mut |send| file.pieces(send))
            }
            Change::Symlink { target, .. } => {
                let request = Request::Symlink { root, path, target: target.clone() };
                self.changed(&format!("link {asked}"), &request)
            }
            Change::Remove { .. } => {
                self.changed(&format!("remove {asked}"), &Request::Remove { root, path })
            }
            Change::Label { context, .. } => {
                let request = Request::Label { root, path, context: context.clone() };
                self.done(&format!("label {asked}"), CALL_WITHIN, &request).map(|()| false)
            }
        }
    }

    /// Sends `request` and the `size` bytes that `give` gives. An error of that ends the machine: what it has is no file.
    fn put(
        &self,
        asked: &str,
        request: &Request,
        size: u64,
        give: &mut dyn FnMut(&mut Send<'_>) -> Result<()>,
    ) -> Result<bool> {
        let doing = format!("write {asked}");
        let within = CALL_WITHIN + Duration::from_secs(size / tree::BYTES_PER_SECOND);
        self.with_port(&doing, within, |port| {
            port.send(&doing, request)?;
            let mut send =
                |piece: &[u8]| protocol::send_piece(port, piece).map_err(|e| port.error(&doing, e));
            give(&mut send)?;
            send(&[])?;
            match port.receive(&doing)? {
                Reply::Changed { was_immutable } => Ok(Ok(was_immutable)),
                Reply::Failed(failure) => Ok(Err(failure)),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn changed(&self, doing: &str, request: &Request) -> Result<bool> {
        match self.ask(doing, CALL_WITHIN, request)? {
            Reply::Changed { was_immutable } => Ok(was_immutable),
            other => Err(unexpected(&other)),
        }
    }
}
