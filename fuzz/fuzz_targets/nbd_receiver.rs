#![no_main]
//! Whatever a client asks of the receiver, without a socket.

libfuzzer_sys::fuzz_target!(|input: &[u8]| landfall_fuzz::receiver::receiver(input));
