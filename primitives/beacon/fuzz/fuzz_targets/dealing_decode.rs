#![no_main]
//! See `entries::dealing_decode`.

#[path = "../entries.rs"]
#[allow(dead_code)]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::dealing_decode(bytes));
