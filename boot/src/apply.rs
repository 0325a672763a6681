//! From plan to bytes: every edit becomes a final [`Change`], then the sandbox writes them.

/// One path and its final bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// Replace or create a file: written beside it, synced, renamed. Owner, mode and extended attributes of an
    /// existing file are kept.
    Put {
        /// Absolute guest path; a link in the last component is followed.
        path: String,
        /// The whole content.
        bytes: Vec<u8>,
        /// Permission bits of a new file.
        mode: u32,
    },
    /// Make a symbolic link, in place of what is there.
    Symlink {
        /// Absolute guest path.
        path: String,
        /// Written into the link.
        target: String,
    },
    /// Remove a file, link or empty folder; absent is fine.
    Remove {
        /// Absolute guest path.
        path: String,
    },
}
