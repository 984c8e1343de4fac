//! libFuzzer around the body in `src/announcement.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::announcement::run(data));
