//! libFuzzer around the body in `src/front.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::front::run(data));
