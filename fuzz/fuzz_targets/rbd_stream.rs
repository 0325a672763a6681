#![no_main]
//! Streams of RBD: whatever they say, they are read to their end or refused, and what was read can be written and read again.

libfuzzer_sys::fuzz_target!(|input: &[u8]| landfall_fuzz::streams::rbd(input));
