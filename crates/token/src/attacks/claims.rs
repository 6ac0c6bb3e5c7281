//! Claims of another house, another time or another form, all with our own good signature.

use serde_json::{Value, json};

use super::{House, NOW_S, Table};

pub(super) fn add(house: &House, table: &mut Table) {
    parties(house, table);
    times(house, table);
    forms(house, table);
}

fn parties(house: &House, table: &mut Table) {
    for iss in [
        "https://portico.example/",
        "https://portico.example.evil.example",
        "https://portico.exampl",
        "http://portico.example",
        "HTTPS://PORTICO.EXAMPLE",
        "",
    ] {
        table.add(
            format!("iss {iss:?}"),
            house.with_payload(|p| p["iss"] = iss.into()),
            "issuer",
        );
    }
    let ours = &*house.issuer.audience;
    for aud in [
        json!([]),
        json!(["other"]),
        json!([format!("{ours}x")]),
        json!([""]),
    ] {
        table.add(
            format!("aud {aud}"),
            house.with_payload(|p| p["aud"] = aud),
            "audience",
        );
    }
    for aud in [
        json!(ours),
        Value::Null,
        json!([[ours]]),
        json!({ours: true}),
        json!([1, ours]),
    ] {
        table.add(
            format!("aud {aud}"),
            house.with_payload(|p| p["aud"] = aud),
            "claims",
        );
    }
    for name in [
        "iss",
        "aud",
        "sub",
        "tid",
        "sid",
        "did",
        "jti",
        "tv",
        "te",
        "ge",
        "aal",
        "amr",
        "roles",
        "iat",
        "auth_time",
        "exp",
    ] {
        let token = house.with_payload(|p| {
            p.as_object_mut().unwrap().remove(name);
        });
        table.add(format!("{name} missing"), token, "claims");
    }
}

fn times(house: &House, table: &mut Table) {
    for value in [
        json!(1_767_300_000.5),
        json!("1767300000"),
        json!(9_223_372_036_854_775_808_u64),
        json!(-1),
        json!(1e300),
        json!([NOW_S + 60]),
        Value::Null,
        json!(1_i64 << 53),
    ] {
        for name in ["exp", "iat", "nbf", "auth_time"] {
            let token = house.with_payload(|p| p[name] = value.clone());
            table.add(format!("{name} {value}"), token, "time_form");
        }
    }
    for exp in [0, NOW_S - 1, NOW_S] {
        table.add(
            format!("exp {exp}"),
            house.with_payload(|p| p["exp"] = exp.into()),
            "expired",
        );
    }
    let late = NOW_S + 61;
    table.add(
        "iat ahead",
        house.with_payload(|p| p["iat"] = late.into()),
        "issued_later",
    );
    table.add(
        "nbf ahead",
        house.with_payload(|p| p["nbf"] = late.into()),
        "not_yet",
    );
    // What clocks may differ by is let through.
    for name in ["iat", "nbf"] {
        let token = house.with_payload(|p| p[name] = (NOW_S + 60).into());
        assert!(house.verify(&token).is_ok(), "{name}");
    }
    let token = house.with_payload(|p| p["exp"] = (NOW_S + 1).into());
    assert!(house.verify(&token).is_ok());
}

fn forms(house: &House, table: &mut Table) {
    for (name, value) in [
        ("sub", json!("admin")),
        ("sub", json!(1)),
        ("tid", json!("")),
        ("sid", json!(["0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6003"])),
        ("tv", json!(-1)),
        ("tv", json!(4_294_967_296_u64)),
        ("te", json!("1")),
        ("ge", json!(1.0)),
        ("ge", Value::Null),
        ("aal", json!(0)),
        ("aal", json!(4)),
        ("aal", json!(256)),
        ("roles", json!("super_admin")),
        ("roles", json!([1])),
        ("scope", json!(["a:b:c"])),
        ("ipb", json!(1)),
        ("ipb", json!("")),
        ("ipb", json!("zzzzzzzzzzzzzzzz")),
        ("ipb", json!("+000000000000001")),
    ] {
        let token = house.with_payload(|p| p[name] = value.clone());
        table.add(format!("{name} {value}"), token, "claims");
    }
}
