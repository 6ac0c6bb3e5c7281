//! Fuzz target: a registration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portico_registry::fuzz_registration(data);
});
