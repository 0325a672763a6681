//! Bodies of frames, as one landfall sends them to another.

use landfall::receive::send::CHUNK;
use landfall::receive::send::frame::{
    Body, CONTENT_AT_MOST, Frame, Ready, ZEROS_AT_MOST, parse, unpacked,
};
use landfall_image::{Bytes, GuestOffset, GuestRange};

/// A disk that all kinds of frames fit on.
const SIZE: Bytes = Bytes((4 << 30) + 512);

/// Reads a body as it is, and with digests that are right.
pub fn body(input: &[u8]) {
    crate::limit_memory();
    read(input);
    // The library has it for fuzzing only; the seeds are made without.
    #[cfg(fuzzing)]
    {
        let mut repaired = input.to_vec();
        landfall::receive::send::frame::repair(&mut repaired);
        read(&repaired);
    }
}

fn read(input: &[u8]) {
    let Ok(frames) = parse(input, SIZE, 512) else { return };
    let (mut room, mut content) = (Vec::new(), 0);
    let mut again = Body::default();
    for frame in &frames {
        let (Frame::Data { range, .. } | Frame::Zeros { range } | Frame::Check { range, .. }) = *frame;
        assert!(
            range.end().0 <= SIZE.0
                && !range.is_empty()
                && range.start().0 % 512 == 0
                && range.len().0 % 512 == 0
        );
        match frame {
            Frame::Data { .. } => {
                assert!(range.len().0 <= CHUNK as u64);
                content += range.len().0;
                let Ok(bytes) = unpacked(frame, &mut room) else { return };
                assert_eq!(bytes.len() as u64, range.len().0);
                again.put(&Ready::content(range.start(), bytes));
            }
            Frame::Zeros { .. } => {
                assert!(range.len().0 <= ZEROS_AT_MOST);
                again.put(&Ready::zeros(range));
            }
            Frame::Check { .. } => assert!(range.len().0 <= CHUNK as u64),
        }
    }
    assert!(content <= CONTENT_AT_MOST);
    // What is written of it is read again.
    let again = again.finish();
    parse(&again, SIZE, 512).expect("a body that was written");
}

/// Bodies as a sender makes them.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let noise: Vec<u8> = (0..8192_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let body = |frames: &[Ready]| {
        let mut body = Body::default();
        frames.iter().for_each(|frame| body.put(frame));
        body.finish()
    };
    let zeros = Ready::zeros(GuestRange::new(GuestOffset(1 << 30), Bytes(1 << 30)));
    vec![
        ("empty", body(&[])),
        (
            "plain",
            body(&[Ready::content(GuestOffset(4096), &noise), Ready::check(GuestOffset(4096), &noise)]),
        ),
        ("packed", body(&[Ready::content(GuestOffset(0), &[7; 65536]), zeros])),
    ]
}
