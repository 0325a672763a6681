//! The few programs of the system that the appliance runs, by their whole paths and with arguments of its own making.

use landfall_image::{Error, Result};
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes an ext4 file system.
pub const MKFS_EXT4: &str = "/usr/sbin/mkfs.ext4";
/// Makes an XFS file system.
pub const MKFS_XFS: &str = "/usr/sbin/mkfs.xfs";
/// Repairs an ext4 file system.
pub const FSCK_EXT4: &str = "/usr/sbin/e2fsck";
/// Lets an XFS file system use what its partition has got.
pub const GROW_XFS: &str = "/usr/sbin/xfs_growfs";
/// Lets the kernel read a partition table anew.
pub const BLOCKDEV: &str = "/usr/sbin/blockdev";
/// Tells the kernel of a partition's new length.
pub const PARTX: &str = "/usr/bin/partx";
/// Waits until the devices that are there have their names.
pub const UDEVADM: &str = "/usr/bin/udevadm";
/// What addresses there are.
pub const IP: &str = "/usr/bin/ip";
/// Orders of the service manager.
pub const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// Makes a host key.
pub const SSH_KEYGEN: &str = "/usr/bin/ssh-keygen";

/// Of a program's messages this much is shown.
const SHOWN: usize = 600;

/// Runs a program to its end; gives its exit code and what it printed.
///
/// # Errors
/// `Io` where it cannot be started or a signal ended it.
pub fn run<A: AsRef<std::ffi::OsStr>>(program: &str, args: &[A]) -> Result<(i32, String)> {
    let failed = |e| Error::io("cannot be run", e).in_file(Path::new(program));
    let out =
        Command::new(program).args(args).env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(failed)?;
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&out.stderr));
    match out.status.code() {
        Some(code) => Ok((code, text)),
        None => Err(failed(std::io::Error::other("a signal ended it"))),
    }
}

/// As [`run`], where anything but success is an error.
///
/// # Errors
/// `Io` with what it printed last.
pub fn must<A: AsRef<std::ffi::OsStr>>(program: &str, args: &[A]) -> Result<String> {
    match run(program, args)? {
        (0, text) => Ok(text),
        (code, text) => {
            let from = text.trim_end().char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
            let last = text.trim_end().get(from..).unwrap_or_default().replace('\n', "; ");
            Err(Error::io(format!("ended with {code}: {last}"), std::io::Error::other("it failed"))
                .in_file(Path::new(program)))
        }
    }
}
