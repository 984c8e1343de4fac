//! libFuzzer around the body in `src/wireguard.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::wireguard::run(data));
