//! The certificate of the API's server, which may be replaced while it runs.

use crate::service::config;
use landfall_image::Result;
use landfall_image::nbd::TlsFiles;
use rustls::ServerConfig;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// What the server proves itself with, and when it was read.
pub(super) struct Certificate {
    files: TlsFiles,
    current: RwLock<(Stamp, Arc<ServerConfig>)>,
}

/// Of the files: inode, change, size.
type Stamp = [Option<(u64, i64, i64, u64)>; 3];

impl Certificate {
    pub(super) fn open(api: &config::Api) -> Result<Certificate> {
        let (certificate, key) = (Some(api.certificate.clone()), Some(api.key.clone()));
        let files = TlsFiles { ca: api.clients_ca.clone(), certificate, key };
        let stamp = Certificate::stamp(&files);
        let tls = files.server_that_asks()?;
        Ok(Certificate { files, current: RwLock::new((stamp, tls)) })
    }

    fn stamp(files: &TlsFiles) -> Stamp {
        let of = |path: &Option<PathBuf>| {
            let there = std::fs::metadata(path.as_ref()?).ok()?;
            Some((there.ino(), there.mtime(), there.mtime_nsec(), there.len()))
        };
        [of(&files.certificate), of(&files.key), of(&files.ca)]
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.1).into()
    }

    /// Takes new files; keeps what it has where they are no use (yet: one may be written after the other).
    pub(super) fn look(&self) {
        let stamp = Certificate::stamp(&self.files);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == stamp {
            return;
        }
        match self.files.server_that_asks() {
            Ok(tls) => {
                tracing::info!("the API has a new certificate");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = (stamp, tls);
            }
            Err(error) => {
                tracing::error!(%error, "the API's new certificate cannot be used; it keeps the one it has")
            }
        }
    }
}
