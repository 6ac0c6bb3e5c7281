//! Fuzz target: the path normaliser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portico_gateway::fuzz::fuzz_path(data);
});
