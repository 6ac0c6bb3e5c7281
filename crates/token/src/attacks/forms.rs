//! Tokens that are not three parts of canonical base64url with one JSON object each (RFC 7515 §7.1, RFC 8725 §3.4).

use serde_json::json;

use super::{House, Table};

pub(super) fn add(house: &House, table: &mut Table) {
    parts(house, table);
    alphabets(house, table);
    documents(house, table);
}

fn parts(house: &House, table: &mut Table) {
    let good = house.good();
    let parts: Vec<&str> = good.split('.').collect();
    let header = house.header().to_string();
    for (name, token) in [
        ("nothing", String::new()),
        ("two parts", parts[..2].join(".")),
        ("four parts", format!("{good}.AA")),
        ("five parts", format!("{good}.AA.AA")),
        ("an empty part behind", format!("{good}.")),
        ("JSON", json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]}).to_string()),
        ("flattened JSON", json!({"payload": parts[1], "protected": parts[0], "signature": parts[2]}).to_string()),
    ] {
        // JSON with two dots in it would be three parts.
        let why = if token.matches('.').count() == 2 { "base64" } else { "not_three_parts" };
        table.add(name, token, why);
    }
    table.add("empty parts", "..".to_owned(), "json");
    table.add("no header", format!(".{}.{}", parts[1], parts[2]), "json");
    table.add("no payload", house.signed(header.as_bytes(), b""), "json");
}

/// Bytes that are no canonical base64url.
fn alphabets(house: &House, table: &mut Table) {
    let good = house.good();
    let parts: Vec<&str> = good.split('.').collect();
    for (name, token) in [
        ("a space", format!(" {good}")),
        ("a line end", format!("{good}\n")),
        ("a tab within", good.replacen("eyJ", "eyJ\t", 1)),
        (
            "padding",
            format!("{}==.{}.{}", parts[0], parts[1], parts[2]),
        ),
        (
            "a length that cannot be",
            format!("{}.{}.{}", parts[0], parts[1], &parts[2][..85]),
        ),
    ] {
        table.add(name, token, "base64");
    }
    let mut trailing = good.clone();
    let last = trailing.pop().unwrap();
    trailing.push(char::from(last as u8 + 1));
    table.add("trailing bits", trailing, "base64");
}

/// Payloads that are no JSON object, or more than one.
fn documents(house: &House, table: &mut Table) {
    let header = house.header().to_string();
    let payload = house.payload().to_string();
    let bytes = |payload: &[u8]| house.signed(header.as_bytes(), payload);
    table.add(
        "BOM",
        bytes(format!("\u{feff}{payload}").as_bytes()),
        "json",
    );
    table.add(
        "BOM in the header",
        house.signed(format!("\u{feff}{header}").as_bytes(), payload.as_bytes()),
        "json",
    );
    table.add(
        "NUL behind",
        bytes(format!("{payload}\0").as_bytes()),
        "json",
    );
    table.add(
        "invalid UTF-8",
        bytes(&[b"{\"a\":\"\xff\"}".as_slice()].concat()),
        "utf8",
    );
    table.add(
        "two objects",
        bytes(format!("{payload}{payload}").as_bytes()),
        "json",
    );
    table.add("a list", bytes(b"[]"), "not_an_object");
    table.add(
        "deep",
        bytes(format!("{{\"a\":{}{}}}", "[".repeat(60), "]".repeat(60)).as_bytes()),
        "json",
    );
    table.add(
        "a comment",
        bytes(payload.replacen('{', "{/**/", 1).as_bytes()),
        "json",
    );
    for (name, again) in [
        ("sub", r#""x""#),
        ("exp", "1"),
        ("tid", r#""x""#),
        ("aud", "[]"),
    ] {
        let twice = payload.replacen('{', &format!("{{\"{name}\":{again},"), 1);
        table.add(format!("{name} twice"), bytes(twice.as_bytes()), "json");
    }
    let escaped = payload.replacen('{', r#"{"su\u0062":"x","#, 1);
    table.add("sub twice, once escaped", bytes(escaped.as_bytes()), "json");
    let large = house.with_payload(|p| p["roles"] = json!(vec!["r"; 4_000]));
    table.add("beyond 8 KiB", large, "too_long");
}
