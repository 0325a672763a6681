#![no_main]
//! Whatever a server answers. The input is all that it ever says.

libfuzzer_sys::fuzz_target!(|input: &[u8]| landfall_fuzz::talk::client(input));
