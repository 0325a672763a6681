//! A vault on which no service works, asked as a service is: for as long as that takes, this process is its service.

use crate::ops::Context;
use crate::ops::receive::is_vault;
use crate::service::config::Config;
use crate::service::run::Alone;
use landfall_image::{Error, Result};
use std::path::Path;

/// Has `ask` done with the socket of the service of the vault in `folder`.
///
/// # Errors
/// Refused where the folder is no vault, or a service works on it; where the vault cannot be opened or closed.
pub fn with_vault<T>(
    context: &Context<'_>,
    folder: &Path,
    ask: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    is_vault(folder)?;
    let vault = folder.canonicalize().map_err(|error| Error::io("cannot resolve", error).in_file(folder))?;
    // Of this user alone, as all temporary folders.
    let sockets = tempfile::Builder::new().prefix("landfall-").tempdir_in(&context.scratch);
    let sockets = sockets
        .map_err(|error| Error::io("cannot make a folder for a socket", error).in_file(&context.scratch))?;
    let mut config = Config::parse("", folder)?;
    config.vault = vault;
    sockets.path().clone_into(&mut config.sockets);
    let socket = config.api_socket();
    Alone::open(config)?.answer(|| ask(&socket))?
}
