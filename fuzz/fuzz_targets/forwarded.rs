//! Fuzz target: `X-Forwarded-For` and its like.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portico_gateway::fuzz::fuzz_forwarded(data);
});
