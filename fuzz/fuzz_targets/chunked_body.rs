//! Fuzz target: a chunked body, cut into pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((cut, body)) = data.split_first() else { return };
    let _ = portico_h1::fuzz_body(body, usize::from(*cut));
});
