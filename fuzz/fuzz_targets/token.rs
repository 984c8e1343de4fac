//! libFuzzer around the body in `src/token.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::token::run(data));
