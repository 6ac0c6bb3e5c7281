//! Fuzz target: queries, paths and durations of the Consul-compatible API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        portico_registry::fuzz_consul_query(text);
    }
});
