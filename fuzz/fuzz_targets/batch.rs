//! libFuzzer around the body in `src/batch.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::batch::run(data));
