#![no_main]
use landfall_image::Format;

libfuzzer_sys::fuzz_target!(|input: &[u8]| landfall_fuzz::exercise::image(input, Format::Vhd));
