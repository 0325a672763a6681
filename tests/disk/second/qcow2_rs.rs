//! qcow2-rs: qcow2 without zstd, extended L2 entries, and whatever else is an incompatible feature.

use super::{Opened, Second};
use ::qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use ::qcow2_rs::sync_io::Qcow2IoSync;
use ::qcow2_rs::utils::qcow2_setup_dev_sync;
use landfall_image::Format;
use std::future::Future;
use std::path::Path;
use std::task::{Context, Poll, Waker};

pub(super) const SECOND: Second = Second {
    name: "qcow2-rs",
    format: Format::Qcow2,
    open,
    may_write: true,
    except_written: &[],
    except_corpus: &[],
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
