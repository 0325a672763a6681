//! vhd images.

use crate::chain::Layer;
use crate::error::Result;
use crate::gate::Gate;
use crate::source::Source;

/// True where the file says that it is a vhd image.
pub fn probe(_source: &Source) -> Result<bool> {
    Ok(false)
}

/// Opens one layer.
pub fn open(source: Source, _gate: &Gate) -> Result<Layer> {
    Err(source.unsupported("vhd is not read yet"))
}
