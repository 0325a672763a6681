//! Independent readers of images: QEMU's tools and the libyal libraries. What is not installed is skipped loudly.

use landfall_image::Format;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// QEMU's name of a format.
pub fn qemu_name(format: Format) -> &'static str {
    if format == Format::Vhd { "vpc" } else { format.name() }
}

/// True where qemu-img is there.
pub fn have_qemu() -> bool {
    let there = Command::new("qemu-img").arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        eprintln!("SKIPPED: qemu-img is not installed");
    }
    there
}

/// Runs qemu-img, which has to succeed.
pub fn qemu_img(arguments: &[&str], paths: &[&Path]) {
    let output = Command::new("qemu-img").args(arguments).args(paths).output().expect("qemu-img runs");
    assert!(
        output.status.success(),
        "qemu-img {arguments:?} {paths:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What qemu-img says against an image that should be sound and have the content of the raw file: its check, where the
/// format has one, and its comparison, for which zeros behind the end of the shorter disk do not count.
pub fn qemu_objects(image: &Path, format: Format, raw: &Path) -> Result<(), String> {
    /// "Checks are not supported."
    const NO_CHECK: i32 = 63;
    let name = qemu_name(format);
    let said = |output: &std::process::Output| {
        let all = [&output.stdout[..], &output.stderr[..]].concat();
        String::from_utf8_lossy(&all).into_owned()
    };
    let check = Command::new("qemu-img").args(["check", "-f", name]).arg(image).output();
    let check = check.expect("qemu-img runs");
    if !check.status.success() && check.status.code() != Some(NO_CHECK) {
        return Err(format!("qemu-img check: {}", said(&check)));
    }
    let compare =
        Command::new("qemu-img").args(["compare", "-f", "raw", "-F", name]).args([raw, image]).output();
    let compare = compare.expect("qemu-img runs");
    if !compare.status.success() {
        return Err(format!("qemu-img compare: {}", said(&compare)));
    }
    Ok(())
}

/// What libqcow, libvmdk and libvhdi read: size and SHA-256 of each image, or what they say against it. `None`, after
/// a loud word, where Python's modules of them (Debian: python3-libqcow, -libvmdk, -libvhdi) are not installed.
pub fn libyal(images: &[(Format, PathBuf)]) -> Option<Vec<Result<(u64, String), String>>> {
    const SCRIPT: &str = "
import hashlib, sys
try:
    import pyqcow, pyvhdi, pyvmdk
except ImportError:
    print('absent'); sys.exit()
def reading(format, path):
    if format == 'vmdk':
        disk = pyvmdk.handle(); disk.open(path); disk.open_extent_data_files()
    else:
        disk = pyqcow.file() if format == 'qcow2' else pyvhdi.file()
        disk.open(path)
    size, at, hash = disk.get_media_size(), 0, hashlib.sha256()
    while at < size:
        disk.seek_offset(at, 0)
        piece = disk.read_buffer(min(size - at, 1 << 20))
        assert piece, 'a short read'
        hash.update(piece); at += len(piece)
    return '%d %s' % (size, hash.hexdigest())
for line in sys.stdin.read().splitlines():
    format, path = line.split(' ', 1)
    try:
        print(reading(format, path))
    except Exception as error:
        print('! ' + str(error).replace('\\n', ' '))
";
    // Debian's, which has the modules, before one that the user prefers.
    let python = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let list: Vec<String> =
        images.iter().map(|(format, path)| format!("{} {}\n", format.name(), path.display())).collect();
    let assert = assert_cmd::Command::new(python).args(["-c", SCRIPT]).write_stdin(list.concat()).output();
    let text = match assert {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            eprintln!("SKIPPED: {python}: {error}");
            return None;
        }
    };
    if text.trim() == "absent" {
        eprintln!("SKIPPED: Python has not the modules pyqcow, pyvmdk and pyvhdi (tools/setup.sh test)");
        return None;
    }
    let reading = |line: &str| match line.strip_prefix("! ") {
        Some(error) => Err(error.to_owned()),
        None => {
            let (size, hash) = line.split_once(' ').expect("a size and a hash");
            Ok((size.parse().expect("a size"), hash.to_owned()))
        }
    };
    let readings: Vec<_> = text.lines().map(reading).collect();
    assert_eq!(readings.len(), images.len(), "one line for each");
    Some(readings)
}

/// SHA-256 of `content`, continued with zeros to `size` bytes.
pub fn sha256_padded(content: &[u8], size: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(content);
    let more = usize::try_from(size).expect("fits").saturating_sub(content.len());
    hash.update(vec![0; more]);
    format!("{:x}", hash.finalize())
}
