//! qcow2-rs: qcow2 without zstd, extended L2 entries, and whatever else is an incompatible feature.

use super::{Exception, Opened, Outcome, STALE, Second, read, still, write_nothing_over, write_plain};
use ::qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use ::qcow2_rs::sync_io::Qcow2IoSync;
use ::qcow2_rs::utils::qcow2_setup_dev_sync;
use landfall_image::create::Base;
use landfall_image::testing::{self, MemDisk};
use landfall_image::{Bytes, Format, OpenOptions, formats};
use std::future::Future;
use std::path::Path;
use std::task::{Context, Poll, Waker};

pub(super) const SECOND: Second = Second {
    name: "qcow2-rs",
    format: Format::Qcow2,
    open,
    may_write: true,
    loads_all: false,
    except_written: &[
        Exception {
            names: "qcow2, zstd",
            comes_to: Outcome::Refused,
            because: "it does not know the incompatible feature of another compression",
        },
        Exception {
            names: "qcow2, extended L2",
            comes_to: Outcome::Refused,
            because: "it does not know the incompatible feature of extended L2 entries",
        },
        Exception {
            names: "qcow2, blocks of 512 bytes",
            comes_to: Outcome::Panicked,
            because: "it takes every cluster to be of 4 KiB or more; built without checks of overflow it hangs or reads wrongly",
        },
    ],
    except_corpus: &[Exception {
        names: "qemu/bios-tables-test.",
        comes_to: Outcome::Panicked,
        because: "clusters of 512 bytes; it takes every cluster to be of 4 KiB or more",
    }],
};

struct Image(Qcow2Dev<Qcow2IoSync>);

/// What is asynchronous in its interface is not with this kind of file.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn Opened>, String> {
    let parameters = Qcow2DevParams::new(9, None, None, true, false);
    let device = qcow2_setup_dev_sync(path, &parameters).map_err(|e| e.to_string())?;
    wait(device.qcow2_prep_io()).map_err(|e| e.to_string())?;
    Ok(Box::new(Image(device)))
}

impl Opened for Image {
    fn size(&mut self) -> Result<u64, String> {
        Ok(self.0.info.virtual_size())
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), String> {
        match wait(self.0.read_at(buf, at)) {
            Ok(len) if len == buf.len() => Ok(()),
            Ok(len) => Err(format!("{len} bytes of {}", buf.len())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether a type is `Sync`, which the inherent constant says where its bound holds.
struct Probe<T>(std::marker::PhantomData<T>);

trait Otherwise {
    const IS_SYNC: bool = false;
}

impl<T> Otherwise for Probe<T> {}

impl<T: Sync> Probe<T> {
    const IS_SYNC: bool = true;
}

#[test]
fn its_defects_are_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let reading = folder.path().join("reading");
    let path = folder.path().join("disk.qcow2");

    // A disk over a shorter one, with nothing of its own: behind the end of the shorter one there are zeros.
    let base = MemDisk::from_bytes(testing::noise_bytes(1, 1 << 20));
    write_plain(&base, "qcow2", &folder.path().join("base.qcow2"));
    let over = Base { path: "base.qcow2".into(), format: Format::Qcow2, size: Bytes::mib(1), identity: None };
    write_nothing_over(over, "qcow2", Bytes::mib(4), &path);
    let disk = formats::open(&path, &OpenOptions::default()).unwrap().disk;
    let content = testing::read_all(&*disk).unwrap();
    assert!(content[1 << 20..].iter().all(|&byte| byte == 0), "by our own reader");
    let read = read(&SECOND, &path, None, &reading);
    assert_eq!(read.outcome, Outcome::Right, "{}", read.says);
    let copy = std::fs::read(read.copy).unwrap();
    assert!(copy[..1 << 20] == content[..1 << 20], "what lies in the shorter disk");
    let stale = copy[1 << 20..].iter().filter(|&&byte| byte == STALE).count();
    still(stale > 2 << 20, &SECOND, "stale memory behind the end of a shorter backing file");

    std::fs::remove_file(&path).unwrap();
    // A header that asks for more than an address space of refcount table.
    write_plain(&base, "qcow2", &path);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[56] = 0xff;
    std::fs::write(&path, bytes).unwrap();
    let read = super::read(&SECOND, &path, None, &reading);
    still(read.outcome == Outcome::Signal, &SECOND, "a damaged header ends the process");

    const { assert!(Probe::<()>::IS_SYNC) };
    still(!Probe::<Qcow2Dev<Qcow2IoSync>>::IS_SYNC, &SECOND, "no use from several threads");
}
