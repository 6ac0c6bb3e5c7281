//! The table of C§12, the errors, and what no text may do.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn two() -> [Value; 2] {
    [
        json!({"Node": "n", "ServiceID": "f1", "ServicePort": 80, "ServiceTags": ["v1", "primary"],
            "ServiceMeta": {"ver": "1", "a-b": "x"}, "ServiceAddress": "10.0.0.1",
            "ServiceTaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.1", "Port": 80}}}),
        json!({"Node": "n", "ServiceID": "f2", "ServicePort": 81, "ServiceTags": [],
            "ServiceMeta": null, "ServiceAddress": "10.0.0.2",
            "ServiceTaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.2", "Port": 81}}}),
    ]
}

fn kept(text: &str) -> String {
    let filter = Filter::new(text, &SERVICE_NODES).unwrap_or_else(|e| panic!("{text}: {e}"));
    let names = ["f1", "f2"];
    let kept: Vec<&str> = two()
        .iter()
        .zip(names)
        .filter(|(item, _)| filter.keeps(item))
        .map(|(_, name)| name)
        .collect();
    kept.join(",")
}

#[test]
fn the_table_of_expressions() {
    for (text, want) in [
        ("ServicePort==80", "f1"),
        ("v1 in ServiceTags", "f1"),
        ("ServiceTags contains v1", "f1"),
        ("ServiceTags is not empty", "f1"),
        ("ServiceMeta.ver==1", "f1"),
        ("ServiceMeta[\"a-b\"]==\"x\"", "f1"),
        ("ver in ServiceMeta", "f1"),
        ("ServicePort!=80", "f2"),
        ("v1 not in ServiceTags", "f2"),
        ("ServiceMeta is empty", "f2"),
        ("ServiceMeta.ver!=1", "f2"),
        ("not ServicePort==80", "f2"),
        ("ServiceAddress matches \"2$\"", "f2"),
        ("ServiceAddress matches `\\.2$`", "f2"),
        ("ServiceMeta.none==1", ""),
        ("ServiceMeta.none!=1", "f1,f2"),
        ("\"10.0.0.1\" in ServiceAddress", "f1"),
        (
            "ServicePort==81 or ServicePort==80 and v1 in ServiceTags",
            "f1,f2",
        ),
        (
            "(ServicePort==81 or ServicePort==80) and v1 in ServiceTags",
            "f1",
        ),
        ("ServiceTaggedAddresses.lan_ipv4.Port==80", "f1"),
        ("not not ServicePort == 80", "f1"),
        (" ( ServiceID == `f2` ) ", "f2"),
        ("ServiceID == \"f\\x31\"", "f1"),
        ("ServiceTags not contains primary", "f2"),
        ("", "f1,f2"),
    ] {
        assert_eq!(kept(text), want, "{text}");
    }
}

#[test]
fn lists_ask_for_any_element() {
    let item = json!({"Node": {"Node": "n1"}, "Service": {"Tags": ["a"]},
        "Checks": [{"Status": "passing"}, {"Status": "critical"}]});
    let keeps = |text| Filter::new(text, &HEALTH).unwrap().keeps(&item);
    assert!(keeps("Checks.Status==passing"));
    assert!(keeps("Checks.Status==critical"));
    assert!(!keeps("Checks.Status==warning"));
    assert!(keeps(
        "Checks is not empty and a in Service.Tags and Node.Node != ``"
    ));
}

#[test]
fn errors_say_what_and_where() {
    let prefix = "Failed to create boolean expression evaluator: ";
    for (text, want) in [
        ("Nope==1", "Selector \"Nope\" is not valid"),
        ("CreateIndex==1", "Selector \"CreateIndex\" is not valid"),
        (
            "ServiceMeta.a.b==1",
            "Selector \"ServiceMeta.a.b\" is not valid",
        ),
        ("ServicePort > 80", "1:13 (12): no match found, expected: "),
        (
            "ServicePort==80 AND ServicePort==81",
            "1:17 (16): no match found, expected: ",
        ),
        ("ServiceID=='x'", "1:12 (11): no match found, expected: "),
        ("", ""),
        (
            "ServicePort==abc",
            "Failed to coerce value \"abc\" for selector \"ServicePort\": strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            "ServicePort is empty",
            "Invalid match operator \"Is Empty\" for selector \"ServicePort\"",
        ),
        (
            "ServiceAddress matches \"(\"",
            "Failed to compile regular expression: ",
        ),
        (
            "(ServicePort==80",
            "1:17 (16): no match found, expected: \")\"",
        ),
    ] {
        match Filter::new(text, &SERVICE_NODES) {
            Ok(_) => assert_eq!(text, ""),
            Err(error) => {
                let rest = error
                    .strip_prefix(prefix)
                    .unwrap_or_else(|| panic!("{error}"));
                assert!(rest.starts_with(want), "{text}: {rest}");
            }
        }
    }
}

#[test]
fn nesting_and_length_are_bounded() {
    let deep = format!(
        "{}ServicePort==1{}",
        "(".repeat(5_000 / 2),
        ")".repeat(5_000 / 2)
    );
    assert!(
        Filter::new(&deep, &SERVICE_NODES)
            .unwrap_err()
            .contains("nested deeper")
    );
    let nots = "not ".repeat(1_000) + "ServicePort==1";
    assert!(
        Filter::new(&nots, &SERVICE_NODES)
            .unwrap_err()
            .contains("nested deeper")
    );
    assert!(Filter::new(&"a".repeat(9_000), &SERVICE_NODES).is_err());
    let wide = vec!["ServicePort==1"; 300].join(" or ");
    assert_eq!(kept(&wide), "");
}

/// The fuzz target of the filter language: any text is refused or can be evaluated.
fn fuzz(text: &str) {
    for kind in [&SERVICE_NODES, &HEALTH, &CHECKS, &NODES, &AGENT_SERVICES] {
        if let Ok(filter) = Filter::new(text, kind) {
            for item in two() {
                filter.keeps(&item);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,80}") {
        fuzz(&text);
    }

    #[test]
    fn no_likely_text_panics(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "ServicePort", "ServiceTags", "ServiceMeta.ver", "Node", "not ", " and ", " or ", "(", ")", "==", "!=",
            " in ", " contains ", " matches ", " is ", "empty", "\"x\"", "`y`", "80", "-1", "0.5", " ", "[\"k\"]",
            "\"", "`", "\\", ".", "[", "]", "ä", "\n",
        ]), 0..24)) {
        fuzz(&words.concat());
    }

    #[test]
    fn not_is_the_contrary(port in 0..200_i64) {
        let item = json!({"ServicePort": port});
        let plain = Filter::new("ServicePort==80", &SERVICE_NODES).unwrap().keeps(&item);
        let other = Filter::new("not ServicePort==80", &SERVICE_NODES).unwrap().keeps(&item);
        prop_assert_ne!(plain, other);
    }
}
