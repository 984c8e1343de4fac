//! libFuzzer around the body in `src/offload.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::offload::run(data));
