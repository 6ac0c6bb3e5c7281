//! Argon2id as fast as the library alone does it on some threads: the floor below password logins.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde_json::{Value, json};

/// Hashes for some seconds on each thread and tells the rate and the CPU time of one.
pub(crate) fn run([m_kib, t, p, threads, seconds]: [&str; 5]) -> Result<Value> {
    let params = Params::new(
        m_kib.parse().context("M_KIB")?,
        t.parse().context("T")?,
        p.parse().context("P")?,
        Some(32),
    )
    .map_err(|error| anyhow::anyhow!("the parameters: {error}"))?;
    let threads: usize = threads.parse().context("THREADS")?;
    let length = Duration::from_secs_f64(seconds.parse().context("SECONDS")?);
    let began = Instant::now();
    let counts = thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|_| {
                let params = params.clone();
                scope.spawn(move || hashes(params, length))
            })
            .collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect::<Result<Vec<u32>>>()
    })?;
    let done: u32 = counts.iter().sum();
    let elapsed = began.elapsed().as_secs_f64();
    Ok(json!({
        "hashes": done,
        "per_second": f64::from(done) / elapsed,
        "ms_each": elapsed * threads as f64 * 1e3 / f64::from(done.max(1)),
    }))
}

fn hashes(params: Params, length: Duration) -> Result<u32> {
    let mut memory = vec![Block::default(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let (mut out, mut done) = ([0; 32], 0_u32);
    let began = Instant::now();
    while began.elapsed() < length {
        argon2
            .hash_password_into_with_memory(
                b"correct horse battery staple",
                &done.to_le_bytes().repeat(4),
                &mut out,
                &mut memory,
            )
            .map_err(|error| anyhow::anyhow!("argon2: {error}"))?;
        done += 1;
    }
    Ok(done)
}
