//! Requests of one connection reach the disk in the order in which they were sent, whatever their lengths.

use super::hostile::Raw;
use super::*;
use landfall_image::nbd::protocol::*;
use std::io::{Read, Write};

/// Writes of all lengths, zeros and flushes that overlap each other, all sent without waiting for an answer.
#[test]
fn overlapping_requests_are_applied_in_the_order_of_their_arrival() {
    const SIZE: usize = 8 << 20;
    let running = Running::start();
    let disk = running.disk("web01/sda", SIZE as u64);
    let mut model = vec![0u8; SIZE];
    let mut sent = Vec::new();
    let mut bytes = Vec::new();
    let mut state = 42u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for cookie in 0..600u64 {
        // Short ones, some around the sizes of the buffers, and long ones.
        let len = match random(12) {
            0 => 1 + random(2 << 20),
            1 => (256 << 10) - 64 + random(128),
            2 => (16 << 10) - 64 + random(128),
            _ => 512 * (1 + random(16)),
        };
        let at = random(SIZE as u64 - len);
        let fill = u8::try_from(1 + cookie % 255).unwrap();
        let (flags, command) = match random(10) {
            0 => (0, CMD_WRITE_ZEROES),
            1 => (CMD_FLAG_FUA, CMD_WRITE),
            2 => (0, CMD_TRIM),
            _ => (0, CMD_WRITE),
        };
        let request = Request { flags, command, cookie, offset: at, len: u32::try_from(len).unwrap() };
        bytes.extend(request.to_bytes());
        let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
        if command == CMD_WRITE {
            bytes.resize(bytes.len() + range.len(), fill);
            model[range].fill(fill);
            sent.push(Op::Write(at, len, fill));
        } else {
            model[range].fill(0);
            sent.push(Op::Zero(at, len));
        }
        if flags == CMD_FLAG_FUA {
            sent.push(Op::Flush);
        }
    }
    let raw = Raw::start(&running.socket(), "web01/sda");
    let mut writer = raw.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut stream = &raw.stream;
    for cookie in 0..600u64 {
        let mut reply = [0; 16];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[4..8], [0; 4]);
        // One after the other, so they are answered in this order, too.
        assert_eq!(reply[8..], cookie.to_be_bytes());
    }
    sender.join().unwrap();
    assert!(disk.ops() == sent);
    assert!(read_all(&*disk) == model);
}

/// An answer to a write means that the disk has taken it, and comes before the next one is begun where that takes long.
#[test]
fn a_slow_disk_is_waited_for_one_request_at_a_time() {
    let running = Running::start();
    let disk = running.disk("web01/sda", 8 << 20);
    *disk.slow.lock().unwrap() = Duration::from_millis(300);
    let mut raw = Raw::start(&running.socket(), "web01/sda");
    raw.write(1, 0, &vec![1; 4 << 20]);
    raw.write(2, 1 << 20, &[2; 512]);
    raw.write(3, 1 << 20, &[3; 512]);
    raw.request(Request { flags: 0, command: CMD_READ, cookie: 4, offset: 7 << 20, len: 512 });
    for cookie in 1..=3 {
        assert_eq!(raw.reply(), (cookie, 0));
        assert_eq!(disk.ops().len() as u64, cookie);
    }
    assert_eq!(raw.reply(), (4, 0));
    assert_eq!(read_all(&*disk)[1 << 20], 3);
}

/// A stop answers what has come as a whole, and drops what has not.
#[test]
fn a_stop_finishes_what_is_there() {
    let running = Running::start();
    let disk = running.disk("web01/sda", 8 << 20);
    *disk.slow.lock().unwrap() = Duration::from_millis(100);
    let mut raw = Raw::start(&running.socket(), "web01/sda");
    for cookie in 0..5 {
        raw.write(cookie, cookie * 512, &[7; 512]);
    }
    // Half of another.
    raw.request(Request { flags: 0, command: CMD_WRITE, cookie: 9, offset: 0, len: 4 << 20 });
    raw.stream.write_all(&[9; 1 << 20]).unwrap();
    let begin = Instant::now();
    while disk.ops().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let shelf = running.shelf.clone();
    let stats = running.stop();
    assert!(begin.elapsed() < Duration::from_secs(5));
    for cookie in 0..5 {
        assert_eq!(raw.reply(), (cookie, 0));
    }
    assert_eq!(raw.stream.read(&mut [0; 16]).unwrap_or(0), 0, "and then the end");
    assert_eq!(disk.ops().len(), 5);
    assert_eq!((stats.connections, stats.broken_off), (0, 0), "{stats:?}");
    assert_eq!(shelf.events.lock().unwrap().last().unwrap(), "web01/sda: 0 left: the receiver was stopped");
}
