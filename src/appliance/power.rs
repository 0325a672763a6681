//! The power button: what a hypervisor presses to shut a guest down. systemd leaves it to logind, which wants D-Bus; here it is read from
//! the kernel.
//!
//! Source: the kernel's `Documentation/input/input.rst`: an event is a time of 16 bytes, type u16, code u16, value i32.

use super::programs;
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const EVENT: usize = 24;
const KEY: u16 = 1;
const POWER: u16 = 116;
/// A machine without one by then has none.
const COMES_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Waits for the button, and powers off; a machine that has none is left alone.
///
/// # Errors
/// `Io` where it goes away.
pub fn run(cancel: &Cancel) -> Result<()> {
    // Its driver may come after this program.
    let end = Instant::now() + COMES_WITHIN;
    let buttons = loop {
        let buttons: Vec<File> = buttons().iter().filter_map(|path| File::open(path).ok()).collect();
        if !buttons.is_empty() || cancel.is_cancelled() {
            break buttons;
        }
        if Instant::now() > end {
            tracing::warn!("there is no power button: shut this machine down at its console or over SSH");
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    };
    let failed = |e: std::io::Error| Error::io("the power button cannot be read", e);
    while !cancel.is_cancelled() {
        let mut fds: Vec<PollFd<'_>> =
            buttons.iter().map(|button| PollFd::new(button, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(|e| failed(e.into()))?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (mut button, _) in buttons.iter().zip(ready).filter(|(_, ready)| *ready) {
            let mut events = [0; EVENT * 16];
            let read = button.read(&mut events).map_err(failed)?;
            if is_pressed(events.get(..read).unwrap_or_default()) {
                tracing::info!("the power button was pressed");
                programs::must(programs::SYSTEMCTL, &["poweroff"])?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// True where one of the events is the button going down.
fn is_pressed(events: &[u8]) -> bool {
    events.chunks_exact(EVENT).any(|event| {
        let word = |at: usize| event.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
        let value = event.get(20..24).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes);
        (word(16), word(18), value) == (Some(KEY), Some(POWER), Some(1))
    })
}

/// Devices that call themselves so.
fn buttons() -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/class/input").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            fs::read_to_string(entry.path().join("device/name"))
                .is_ok_and(|name| name.trim() == "Power Button")
        })
        .map(|entry| PathBuf::from("/dev/input").join(entry.file_name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_button_going_down_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = vec![0; 16];
            bytes.extend(kind.to_le_bytes());
            bytes.extend(code.to_le_bytes());
            bytes.extend(value.to_le_bytes());
            bytes
        };
        assert!(is_pressed(&[event(0, 0, 0), event(KEY, POWER, 1)].concat()));
        for other in [event(KEY, POWER, 0), event(KEY, 30, 1), event(4, POWER, 1), vec![0; 23]] {
            assert!(!is_pressed(&other));
        }
    }
}
