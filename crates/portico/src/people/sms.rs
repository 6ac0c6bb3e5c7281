//! `portico sms`: test messages, and the vendors' examples.

use anyhow::Result;
use serde_json::json;

use super::print_json;
use crate::cli::{SmsArgs, SmsCommand};
use crate::client::{Client, encoded};
use crate::table::{Table, facts};
use crate::text::say;

/// Carries out one command.
pub(crate) async fn run(args: SmsArgs) -> Result<u8> {
    match args.command {
        SmsCommand::Test { provider } => {
            let client = Client::connect(&args.remote.connect)?;
            let path = format!("/api/identity/sms/providers/{}/test", encoded(&provider));
            let answer = client.post(&path, &json!({})).await?;
            if args.remote.json {
                print_json(&answer)?;
            } else {
                say!("{}", facts(&answer).join("\n"));
            }
            Ok(0)
        }
        SmsCommand::Vectors => Ok(vectors(args.remote.json)?),
    }
}

/// Signs the published examples; exit code 1 when one differs.
fn vectors(as_json: bool) -> Result<u8> {
    let all = portico_sms::vectors::run();
    let good = all.iter().all(portico_sms::vectors::Vector::holds);
    let source = |published| if published { "vendor" } else { "computed" };
    if as_json {
        let rows: Vec<_> = all
            .iter()
            .map(|v| json!({ "name": v.name, "source": source(v.published), "holds": v.holds() }))
            .collect();
        print_json(&rows.into())?;
    } else {
        let mut table = Table::new(&["EXAMPLE", "SOURCE", "RESULT"]);
        for vector in &all {
            let word = if vector.holds() { "equal" } else { "DIFFERS" };
            table.row([vector.name, source(vector.published), word].map(str::to_owned));
        }
        table.print();
    }
    Ok(u8::from(!good))
}
