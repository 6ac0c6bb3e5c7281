//! `portico identity argon2-tune`: what a password hash costs on this machine.

use std::time::Instant;

use anyhow::{Result, anyhow};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde_json::json;

use crate::table::Table;
use crate::text::say;

/// Memory in KiB, passes, lanes: OWASP's set, and what others use.
const KNOWN: [(u32, u32, u32, &str); 7] = [
    (19_456, 2, 1, "OWASP, the default"),
    (47_104, 1, 1, "OWASP"),
    (12_288, 3, 1, "OWASP"),
    (9_216, 4, 1, "OWASP"),
    (7_168, 5, 1, "OWASP"),
    (65_536, 1, 4, "preset"),
    (65_536, 3, 4, "RFC 9106, second choice"),
];
/// Milliseconds for which parameters are looked for.
const GOALS: [f64; 3] = [50.0, 100.0, 250.0];
/// Each is measured so often; the fastest counts, which is the one that nothing disturbed.
const RUNS: u32 = 3;

/// Measures and prints.
pub(crate) fn run(as_json: bool) -> Result<u8> {
    let mut known = Vec::new();
    for (m, t, p, note) in KNOWN {
        known.push((m, t, p, note, cost(m, t, p)?));
    }
    let mut goals = Vec::new();
    for goal in GOALS {
        goals.push((goal, reaching(goal)?));
    }
    if as_json {
        let known: Vec<_> = known
            .iter()
            .map(
                |(m, t, p, note, ms)| json!({ "m_kib": m, "t": t, "p": p, "note": note, "ms": ms }),
            )
            .collect();
        let goals: Vec<_> = goals
            .iter()
            .map(|(goal, (t, ms))| json!({ "goal_ms": goal, "m_kib": KNOWN[0].0, "t": t, "p": 1, "ms": ms }))
            .collect();
        let all = json!({ "measured": known, "suggested": goals });
        crate::text::print(&(serde_json::to_string_pretty(&all)? + "\n"));
        return Ok(0);
    }
    let mut table = Table::new(&["M KIB", "T", "P", "MS", "PER SECOND AND CORE", "WHOSE"]);
    for (m, t, p, note, ms) in known {
        table.row([
            m.to_string(),
            t.to_string(),
            p.to_string(),
            format!("{ms:.1}"),
            format!("{:.0}", 1_000.0 / ms),
            note.to_owned(),
        ]);
    }
    table.print();
    say!();
    for (goal, (t, ms)) in goals {
        say!(
            "about {goal:.0} ms: \"identity.password.argon2\" = {{ m_kib = {}, t = {t}, p = 1 }}  ({ms:.0} ms)",
            KNOWN[0].0
        );
    }
    Ok(0)
}

/// Passes over the default's memory that come nearest to a goal.
fn reaching(goal: f64) -> Result<(u32, f64)> {
    let m = KNOWN[0].0;
    let two = cost(m, 2, 1)?;
    // Filling costs once, each pass the same: the cost grows with the passes in a line.
    let each = (cost(m, 6, 1)? - two) / 4.0;
    let t = ((goal - two) / each.max(0.01) + 2.0).round().max(2.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 2 and a few hundred"
    )]
    let t = t.min(1_000.0) as u32;
    Ok((t, cost(m, t, 1)?))
}

/// Milliseconds of one hash.
fn cost(m_kib: u32, t: u32, p: u32) -> Result<f64> {
    let params = Params::new(m_kib, t, p, Some(32)).map_err(|e| anyhow!("{e}"))?;
    let mut memory = vec![Block::default(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let (mut out, mut best) = ([0; 32], f64::INFINITY);
    for _ in 0..RUNS {
        let began = Instant::now();
        argon2
            .hash_password_into_with_memory(
                b"correct horse battery staple",
                b"0123456789abcdef",
                &mut out,
                &mut memory,
            )
            .map_err(|e| anyhow!("{e}"))?;
        best = best.min(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}
