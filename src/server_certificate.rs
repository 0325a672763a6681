//! The certificate that a server proves itself with, which may be replaced while it runs: an appliance's is for the addresses that it has,
//! and those come after its start.
//!
//! Deliberately absent: watching the files. They are looked at as often as somebody asks ([`ServerCertificate::look`]).

use landfall_image::Result;
use landfall_image::nbd::TlsFiles;
use rustls::ServerConfig;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// What it proves itself with, and when it was read.
pub struct ServerCertificate {
    /// Whose it is, for the log.
    of: &'static str,
    files: TlsFiles,
    read: fn(&TlsFiles) -> Result<Arc<ServerConfig>>,
    current: RwLock<(Stamp, Arc<ServerConfig>)>,
    /// What could not be used last, and was told.
    told: Mutex<Option<Stamp>>,
}

/// As often it is looked whether there is another one.
pub const LOOKED_AT: Duration = Duration::from_secs(1);

/// Of the files: inode, change, size.
type Stamp = [Option<(u64, i64, i64, u64)>; 3];

impl ServerCertificate {
    /// Reads the files with `read`, which says what is asked of clients: [`TlsFiles::server`], [`TlsFiles::server_that_asks`].
    ///
    /// # Errors
    /// Those of `read`.
    pub fn open(
        of: &'static str,
        files: TlsFiles,
        read: fn(&TlsFiles) -> Result<Arc<ServerConfig>>,
    ) -> Result<ServerCertificate> {
        let stamp = ServerCertificate::stamp(&files);
        let tls = read(&files)?;
        Ok(ServerCertificate { of, files, read, current: RwLock::new((stamp, tls)), told: Mutex::default() })
    }

    fn stamp(files: &TlsFiles) -> Stamp {
        let of = |path: &Option<PathBuf>| {
            let there = std::fs::metadata(path.as_ref()?).ok()?;
            Some((there.ino(), there.mtime(), there.mtime_nsec(), there.len()))
        };
        [of(&files.certificate), of(&files.key), of(&files.ca)]
    }

    /// For a connection that comes now.
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.1).into()
    }

    /// Takes new files; keeps what it has where they are no use (yet: one may be written after the other).
    pub fn look(&self) {
        let stamp = ServerCertificate::stamp(&self.files);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == stamp {
            return;
        }
        match (self.read)(&self.files) {
            Ok(tls) => {
                tracing::info!("{} has a new certificate", self.of);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = (stamp, tls);
            }
            Err(error) => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.replace(stamp) == Some(stamp) {
                    return;
                }
                tracing::error!(%error, "{}: the new certificate cannot be used; it keeps the one it has", self.of);
            }
        }
    }
}
