#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| landfall_fuzz::exercise::iso(input));
