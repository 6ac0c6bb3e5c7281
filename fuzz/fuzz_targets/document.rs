//! Fuzz target: documents of the gateway's objects.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portico_gateway::fuzz::fuzz_document(data);
});
