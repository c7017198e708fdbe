#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| thinstore_fuzz_targets::run("cli", input));
