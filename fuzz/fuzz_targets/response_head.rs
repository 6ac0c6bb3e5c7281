//! Fuzz target: an answer's head.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = portico_h1::fuzz_response(data);
});
