//! Fuzz target: `Cache-Control`, `Age` and dates.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portico_gateway::fuzz::fuzz_cache_control(data);
});
