//! `portico status`: services, instances and their health as a table.

use anyhow::Result;
use serde_json::Value;

use crate::cli::StatusArgs;
use crate::client::Client;

/// Prints the table, or the list as JSON.
pub(crate) async fn run(args: StatusArgs) -> Result<u8> {
    let client = Client::connect(&args.connect)?;
    let instances = all(&client).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&instances)?);
        return Ok(0);
    }
    if instances.is_empty() {
        println!(
            "no service is registered; try: portico run --name hello -- python3 -m http.server {{port}}"
        );
        return Ok(0);
    }
    print!("{}", table(&instances));
    Ok(0)
}

async fn all(client: &Client) -> Result<Vec<Value>> {
    let mut instances = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let more = cursor.map(|c| format!("&cursor={c}")).unwrap_or_default();
        let page = client
            .get(&format!("/api/registry/services?state=all&limit=200{more}"))
            .await?;
        instances.extend(page["items"].as_array().into_iter().flatten().cloned());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(instances);
        }
    }
}

fn table(instances: &[Value]) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut rows =
        vec![["SERVICE", "VERSION", "STATE", "ADDRESS", "WEIGHT", "REASON"].map(str::to_owned)];
    for item in instances {
        let address = match (item["host"].as_str(), item["port"].as_u64()) {
            (Some(host), Some(port)) if port > 0 => format!("{host}:{port}"),
            _ => "in process".to_owned(),
        };
        rows.push([
            text(&item["name"]),
            text(&item["version"]),
            text(&item["state"]),
            address,
            text(&item["weight"]),
            text(&item["state_reason"]),
        ]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text = table(&[
            json!({ "name": "hello", "version": "1.0", "state": "ready", "host": "127.0.0.1", "port": 5, "weight": 100 }),
            json!({ "name": "registry", "version": "0.1.0", "state": "ready", "weight": 100, "state_reason": "built in" }),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("STATE"), lines[1].find("ready"));
        assert!(lines[1].contains("127.0.0.1:5"));
        assert!(lines[2].contains("in process"));
    }
}
