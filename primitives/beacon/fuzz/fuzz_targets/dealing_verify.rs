#![no_main]
//! See `entries::dealing_verify`.

#[path = "../entries.rs"]
#[allow(dead_code)]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::dealing_verify(bytes));
