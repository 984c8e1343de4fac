//! libFuzzer around the body in `src/node.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::node::run(data));
