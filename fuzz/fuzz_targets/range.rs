//! Fuzz target: `Range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((length, field)) = data.split_first() else { return };
    portico_gateway::fuzz::fuzz_range(field, usize::from(*length));
});
