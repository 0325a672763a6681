//! Sockets that clients connect to.

use super::config::Listen;
use crate::doors::{self, SocketFile};
use crate::server_certificate::ServerCertificate;
use landfall_image::Result;
use landfall_image::nbd::TlsFiles;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

/// A socket that is open for clients.
pub(super) enum Door {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, Option<Arc<ServerCertificate>>),
}

pub(super) fn open(listen: &Listen) -> Result<Door> {
    match listen {
        Listen::Unix(path) => doors::unix(path).map(|(listener, file)| Door::Unix(listener, file)),
        Listen::Tcp { address, tls, .. } => {
            // Certificates first: a port is not taken in vain.
            let open = |files: &TlsFiles| {
                ServerCertificate::open("the NBD receiver", files.clone(), TlsFiles::server).map(Arc::new)
            };
            let tls = tls.as_ref().map(open).transpose()?;
            Ok(Door::Tcp(doors::tcp(*address)?, tls))
        }
    }
}

impl Door {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Door::Unix(..) => None,
            Door::Tcp(listener, _) => listener.local_addr().ok(),
        }
    }
}
