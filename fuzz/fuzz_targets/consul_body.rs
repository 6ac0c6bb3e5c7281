//! Fuzz target: bodies of the Consul-compatible API.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portico_registry::fuzz_consul_body(data);
});
