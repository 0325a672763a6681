#![no_main]
//! Whatever a client asks. The input is all that it ever says.

libfuzzer_sys::fuzz_target!(|input: &[u8]| landfall_fuzz::talk::server(input));
