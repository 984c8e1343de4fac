//! libFuzzer around the body in `src/packet.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::packet::run(data));
