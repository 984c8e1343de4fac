//! libFuzzer around the body in `src/probe.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::probe::run(data));
