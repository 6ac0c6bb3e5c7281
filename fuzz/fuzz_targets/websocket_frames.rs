//! Fuzz target: the ends of WebSocket frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portico_gateway::fuzz::fuzz_frames(data);
});
