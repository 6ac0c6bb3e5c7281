#![cfg(test)]
//! Tables, and ten thousand generated secrets in nested forms.

use super::*;
use portico_base::{Random, SeededRandom};
use proptest::prelude::*;

#[test]
fn table() {
    let long = "a1b2c3d4".repeat(6);
    for (input, expected) in [
        ("nothing to hide, 12 of 345", "nothing to hide, 12 of 345"),
        ("call 13812345678 now", "call 138****5678 now"),
        ("call +8613812345678", "call +86138****5678"),
        ("138 1234 5678", "138****5678"),
        ("mail bob@example.com.", "mail b***@example.com."),
        ("card 4111 1111 1111 1111", "card ****1111"),
        ("card 6222021234567894", "card ****7894"),
        ("id 11010519491231002X ok", "id 110105********002X ok"),
        ("id 110105194912310021", "id 110105********0021"),
        ("at 1763726400123 ms", "at 1763726400123 ms"),
        ("password=hunter2 user=bob", "password=«masked» user=bob"),
        (
            r#"{"password":"hun\"ter2","n":1}"#,
            r#"{"password":"«masked»","n":1}"#,
        ),
        (
            r#"{\"api_token\":\"a,b\",\"n\":1}"#,
            r#"{\"api_token\":\"«masked»\",\"n\":1}"#,
        ),
        (
            "Login { password: Some(\"x y\"), otp: 1234 }",
            "Login { password: «masked», otp: «masked» }",
        ),
        ("secret: [\"a\", \"b]\"], n: 1", "secret: «masked», n: 1"),
        ("authorization: Basic abc def", "authorization: «masked»"),
        (
            "GET /x?a=1&token=abc&b=2 HTTP",
            "GET /x?a=1&token=«masked»&b=2 HTTP",
        ),
        (
            "redis://u:p@ss@host:6379/0",
            "redis://u:«masked»@host:6379/0",
        ),
        ("postgres://me@host/db", "postgres://m***@host/db"),
        (
            "status code: 404, error code: 23505",
            "status code: 404, error code: 23505",
        ),
        ("code: 482913", "code: «masked»"),
        (
            "{ code: \"identity.token_expired\" }",
            "{ code: \"identity.token_expired\" }",
        ),
        ("Bearer abcdefgh", "Bearer ***"),
        ("key ptk_0123456789abcdef", "key ***"),
        ("2026-11-21T12:00:00.123456Z", "2026-11-21T12:00:00.123456Z"),
        (
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "01890a5d-ac96-774b-bcce-b302099a8057",
        ),
        ("127.0.0.1:8080 [::1]:9090", "127.0.0.1:8080 [::1]:9090"),
        ("密码 password：x", "密码 password：x"),
        ("password=", "password="),
        ("a@", "a@"),
        ("@b", "@b"),
    ] {
        assert_eq!(text(input), expected, "{input}");
    }
    let token = format!("ptr_{long}");
    assert_eq!(
        text(&token),
        format!("{}***{}", &token[..8], &token[token.len() - 8..])
    );
    assert_eq!(field("x-api-key", "x"), MASKED);
    assert_eq!(field("route", "13812345678"), "138****5678");
}

/// Makes secrets of every kind and hides them in every form that a log line takes.
struct Maker(SeededRandom);

impl Maker {
    fn chars(&self, set: &[u8], n: u64) -> String {
        (0..n)
            .map(|_| char::from(set[usize::try_from(self.0.below(set.len() as u64)).unwrap()]))
            .collect()
    }

    fn alnum(&self, n: u64) -> String {
        self.chars(
            b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789",
            n,
        )
    }

    /// A secret and whether only its name gives it away.
    fn secret(&self) -> (String, bool) {
        match self.0.below(8) {
            0 => (
                format!(
                    "1{}{}",
                    self.chars(b"3456789", 1),
                    self.chars(b"0123456789", 9)
                ),
                false,
            ),
            1 => (
                format!(
                    "{}@{}.com",
                    self.alnum(8).to_lowercase(),
                    self.alnum(5).to_lowercase()
                ),
                false,
            ),
            2 => (format!("ptk_{}", self.alnum(43)), false),
            3 => (
                format!(
                    "eyJ{}.{}.{}",
                    self.alnum(20),
                    self.alnum(30),
                    self.alnum(43)
                ),
                false,
            ),
            4 => {
                let id = format!(
                    "{}1990{:02}15{}",
                    self.chars(b"12345", 6),
                    self.0.below(12) + 1,
                    self.chars(b"0123456789", 4)
                );
                (id, false)
            }
            5 => (luhn(&format!("4{}", self.chars(b"0123456789", 14))), false),
            6 => (self.chars(b"0123456789", 6), true),
            _ => (self.alnum(6 + self.0.below(20)), true),
        }
    }

    fn name(&self) -> &'static str {
        const NAMES: &[&str] = &[
            "password",
            "client_secret",
            "api_token",
            "otp",
            "authorization",
            "cookie",
            "x-signature",
            "ticket",
            "private_key",
            "sms_code",
            "db.password",
            "Access-Token",
        ];
        NAMES[usize::try_from(self.0.below(NAMES.len() as u64)).unwrap()]
    }

    fn named(&self, secret: &str) -> String {
        let name = self.name();
        match self.0.below(8) {
            0 => serde_json::json!({"a": {"b": [{name: secret, "n": 1}]}}).to_string(),
            1 => serde_json::json!({"body": serde_json::json!({name: secret}).to_string()})
                .to_string(),
            2 => {
                let inner = serde_json::json!({"x": serde_json::json!({name: secret}).to_string()});
                serde_json::json!({"outer": inner.to_string()}).to_string()
            }
            3 => format!("Request {{ {name}: Some({secret:?}), n: 1 }}"),
            4 => format!("https://host/path?a=1&{name}={secret}&z=2"),
            5 => format!("failed: {name}: {secret}\nnext line"),
            6 => serde_json::json!({name: {"deep": [secret, {"er": secret}]}}).to_string(),
            _ => format!("{name} = '{secret}' and more"),
        }
    }

    fn plain(&self, secret: &str) -> String {
        match self.0.below(4) {
            0 => format!("sent to {secret}, retrying"),
            1 => serde_json::json!({"list": [[secret]], "n": {"to": secret}}).to_string(),
            2 => format!("Sms {{ to: {secret:?} }}"),
            _ => format!("GET /users/{secret}/profile"),
        }
    }
}

fn luhn(digits: &str) -> String {
    let check = (0..10).find(|check| {
        let whole = format!("{digits}{check}");
        let sum: u32 = whole
            .bytes()
            .rev()
            .enumerate()
            .map(|(i, b)| {
                let n = u32::from(b - b'0') * if i % 2 == 1 { 2 } else { 1 };
                n / 10 + n % 10
            })
            .sum();
        sum.is_multiple_of(10)
    });
    format!("{digits}{}", check.unwrap())
}

#[test]
fn ten_thousand_nested_secrets_do_not_pass() {
    let maker = Maker(SeededRandom::new(20_261_121));
    for i in 0..10_000 {
        let (secret, only_by_name) = maker.secret();
        let line = if only_by_name || i % 2 == 0 {
            maker.named(&secret)
        } else {
            maker.plain(&secret)
        };
        let masked = text(&line);
        assert!(!masked.contains(&secret), "{i}: {line} -> {masked}");
        assert_eq!(
            text(&masked),
            masked,
            "masking twice changes nothing: {line}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_and_clean_text_is_kept(input in ".{0,200}") {
        let _ = text(&input);
    }

    #[test]
    fn hostile_text_is_taken(input in "[\\\\\"'=:@{}()\\[\\]a-c1-9 +-]{0,300}") {
        let _ = text(&format!("password{input}"));
        let _ = text(&input);
    }

    #[test]
    fn words_are_kept(input in "[a-z ,.!?]{0,100}") {
        prop_assert_eq!(text(&input), input.as_str());
    }
}
