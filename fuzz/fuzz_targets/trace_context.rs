//! Fuzz target: W3C trace context.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portico_gateway::fuzz::fuzz_trace(data);
});
