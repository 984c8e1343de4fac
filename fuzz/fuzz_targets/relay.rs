//! libFuzzer around the body in `src/relay.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::relay::run(data));
