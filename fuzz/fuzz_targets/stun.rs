//! libFuzzer around the body in `src/stun.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::stun::run(data));
