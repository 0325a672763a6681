//! A kernel module file: unpacked, proved to be a module, and asked what it is for.
//!
//! The signature behind the ELF data (`~Module signature appended~`) is part of the file and is never touched.

use crate::linux::initramfs::compress::{self, Compressor};
use crate::{Error, Result};
use landfall_image::Bytes;
use object::{Object, ObjectKind, ObjectSection};

/// A module file unpacked. The largest in the field, GPU drivers with debug data, come near 100 MiB.
pub const MODULE: Bytes = Bytes::mib(256);

/// What a module says of itself in `.modinfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    /// `vermagic=`: kernel version, then what it was built with.
    pub vermagic: Option<String>,
    /// `name=`: absent before Linux 4.12.
    pub name: Option<String>,
}

impl ModuleInfo {
    /// The kernel version that it was built for.
    pub fn kernel(&self) -> Option<&str> {
        self.vermagic.as_deref()?.split(' ').next()
    }
}

/// The plain module out of a `.ko`, `.ko.gz`, `.ko.xz` or `.ko.zst`.
///
/// # Errors
/// `Corrupt` where the compressed data is damaged, `Refused` where it unpacks to more than [`MODULE`].
pub fn unpack(bytes: Vec<u8>) -> Result<Vec<u8>> {
    match Compressor::detect(&bytes) {
        None => Ok(bytes),
        Some(compressor) => Ok(compress::unpack(compressor, &bytes, MODULE)?.0),
    }
}

/// Proves that `bytes` (unpacked) are a relocatable ELF object with a `.modinfo` section, and reads that.
///
/// # Errors
/// `Corrupt` where it is something else: the kernel would refuse it, and nobody would learn why.
pub fn parse(bytes: &[u8]) -> Result<ModuleInfo> {
    let damaged = |e: object::Error| Error::corrupt(format!("the module is not a sound ELF file: {e}"));
    let file = object::File::parse(bytes).map_err(damaged)?;
    if file.kind() != ObjectKind::Relocatable {
        let says =
            format!("the module is an ELF file of kind {:?}; a kernel module is relocatable", file.kind());
        return Err(Error::corrupt(says));
    }
    let section = file
        .section_by_name(".modinfo")
        .ok_or_else(|| Error::corrupt("the module has no .modinfo section: it is no kernel module"))?;
    let mut info = ModuleInfo::default();
    for field in section.data().map_err(damaged)?.split(|b| *b == 0) {
        let text = String::from_utf8_lossy(field);
        match text.split_once('=') {
            Some(("vermagic", value)) => info.vermagic = Some(value.into()),
            Some(("name", value)) => info.name = Some(value.into()),
            _ => {}
        }
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn what_is_no_module_is_corrupt() {
        for bytes in [&b""[..], b"\x7fELF", b"hello", &[0; 4096]] {
            assert_eq!(parse(bytes).expect_err("no module").kind(), Kind::Corrupt);
        }
        let own = std::env::current_exe().and_then(std::fs::read).expect("this program");
        assert_eq!(parse(&own).expect_err("an executable").kind(), Kind::Corrupt);
    }
}
