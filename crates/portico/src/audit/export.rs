//! `portico audit export`: the chain as lines of JSON that verify on any machine.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::print_json;
use crate::cli::{ExportArgs, Remote};
use crate::client::Client;
use crate::text::say;

/// Links of one question.
const PART: u64 = 200;

pub(super) async fn run(remote: &Remote, wish: &ExportArgs) -> Result<u8> {
    let client = Client::connect(&remote.connect)?;
    let name = wish.out.display();
    let file = File::create_new(&wish.out).with_context(|| format!("{name}"))?;
    let mut out = BufWriter::new(file);
    let (mut after, mut links) = (wish.from.map_or(0, |from| from - 1), 0_u64);
    let mut first = true;
    loop {
        let left = wish
            .to
            .map_or(PART, |to| PART.min(to.saturating_sub(after)));
        if left == 0 {
            break;
        }
        let path = format!("/api/audit/links?after={after}&limit={left}");
        let part = client.get(&path).await?;
        if first {
            writeln!(out, "{}", part["header"])?;
            first = false;
        }
        for line in part["items"].as_array().into_iter().flatten() {
            writeln!(out, "{line}")?;
            links += u64::from(line["kind"] == "link");
        }
        match part["next"].as_u64() {
            Some(next) if next > after => after = next,
            Some(_) => bail!("the chain does not go on"),
            None => break,
        }
    }
    out.into_inner()?.sync_all()?;
    if remote.json {
        print_json(&json!({ "file": name.to_string(), "links": links, "to_seq": after }))?;
    } else {
        say!("{links} records written to {name}");
    }
    Ok(0)
}
