//! The three stand-ins as a program for `tests/sms`: prints where they listen, then what they saw.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use portico_base::SystemClock;
use portico_sms::testing::{StandIn, Vendor};

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let mut all = Vec::new();
    for vendor in Vendor::ALL {
        let one = StandIn::start(vendor, Arc::new(SystemClock)).await?;
        writeln!(out, "{} {}", vendor.name(), one.url())?;
        all.push((vendor, one));
    }
    out.flush()?;
    // A line on standard input names a vendor; its last request is told. The end of input ends the program.
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let found = all.iter().find(|(vendor, _)| vendor.name() == line);
        let said = found
            .and_then(|(_, one)| one.seen().last().cloned())
            .map_or_else(
                || "nothing".to_owned(),
                |seen| match seen.refused {
                    Some(why) => format!("refused {why}"),
                    None => format!("taken {} {}", seen.phone, seen.code),
                },
            );
        writeln!(out, "{said}")?;
        out.flush()?;
    }
    Ok(())
}
