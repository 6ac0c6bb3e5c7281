//! What must not be in a record: values of secrets become fingerprints, contacts are masked (CT-33).

use aws_lc_rs::hmac;
use portico_base::mask::{email, is_secret_name, phone};
use serde_json::{Value, json};

/// Names whose value is a contact and the change itself.
const CONTACTS: &[&str] = &[
    "email",
    "phone",
    "mobile",
    "contact",
    "address",
    "pending_email",
];

/// Hides what must not be in a record.
pub(crate) struct Masker(hmac::Key);

impl Masker {
    /// With the installation's key for fingerprints.
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A changed value as a record may hold it.
    pub(crate) fn value(&self, path: &str, value: Value) -> Value {
        let last = path.rsplit(['/', '.', '[']).next().unwrap_or(path);
        self.named(last, value)
    }

    fn named(&self, name: &str, value: Value) -> Value {
        let secret = is_secret_name(name);
        match value {
            Value::String(text) if secret => self.fingerprint(text.as_bytes()),
            Value::String(text) if !CONTACTS.contains(&name) => Value::String(masked(text)),
            Value::Array(items) => { items.into_iter() }
                .map(|item| self.named(name, item))
                .collect(),
            Value::Object(members) if secret => {
                self.fingerprint(Value::Object(members).to_string().as_bytes())
            }
            Value::Object(members) => Value::Object(
                { members.into_iter() }
                    .map(|(name, value)| {
                        let value = self.named(&name, value);
                        (name, value)
                    })
                    .collect(),
            ),
            other => other,
        }
    }

    /// The first eight hex digits of an HMAC (CT-9): enough to see that a value changed, too little to find it.
    fn fingerprint(&self, value: &[u8]) -> Value {
        let tag = hmac::sign(&self.0, value);
        json!({ "fingerprint": hex::encode(&tag.as_ref()[..4]) })
    }
}

/// A text that is a contact as a whole, masked.
fn masked(text: String) -> String {
    if looks_like_email(&text) {
        return email(&text);
    }
    let digits = text.strip_prefix('+').unwrap_or_default();
    let is_phone = (8..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if is_phone { phone(&text) } else { text }
}

fn looks_like_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '/' | ':' | '@' | '<' | '>');
    !local.is_empty()
        && domain.contains('.')
        && text.len() <= 254
        && local.chars().all(plain)
        && domain.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_become_fingerprints_and_contacts_are_masked() {
        let masker = Masker::new(&[7; 32]);
        let of = |path: &str, value: Value| masker.value(path, value);
        let secret = of("identity.sms.aliyun.access_key_secret", json!("hunter2"));
        assert_eq!(secret["fingerprint"].as_str().map(str::len), Some(8));
        assert_eq!(secret, of("password", json!("hunter2")));
        assert_ne!(secret, of("password", json!("hunter3")));
        assert_eq!(of("identity.token.access_ttl_s", json!(900)), json!(900));
        assert_eq!(
            of("owner", json!("ada@example.com")),
            json!("a***@example.com")
        );
        assert_eq!(
            of("owner", json!("+8613812345678")),
            json!("+86138****5678")
        );
        assert_eq!(
            of("/email", json!("ada@example.com")),
            json!("ada@example.com")
        );
        assert_eq!(of("status", json!("active")), json!("active"));
        let nested = of(
            "doc",
            json!({ "headers": { "authorization": "Bearer x" }, "to": ["ada@example.com"], "n": 1 }),
        );
        assert!(!nested.to_string().contains("Bearer x"), "{nested}");
        assert_eq!(nested["to"], json!(["a***@example.com"]));
        assert_eq!(nested["n"], 1);
        assert!(
            !of("tokens[0].secret", json!({ "a": "hunter2" }))
                .to_string()
                .contains("hunter2")
        );
    }
}
