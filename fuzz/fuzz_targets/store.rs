//! libFuzzer around the body in `src/store.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::store::run(data));
