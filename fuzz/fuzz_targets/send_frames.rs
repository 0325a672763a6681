#![no_main]
//! Bodies of frames that another landfall sends: they are refused, or each frame lies on the disk and is what it says.

libfuzzer_sys::fuzz_target!(|input: &[u8]| landfall_fuzz::frames::body(input));
