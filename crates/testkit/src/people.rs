//! People of a test: made by the operator, logged in as anybody logs in.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::caller::Caller;

/// A password that every policy takes.
pub const PASSWORD: &str = "quartz lantern 88 ferry";

/// Somebody with an account.
pub struct Person {
    /// Id of the user.
    pub id: String,
    /// User name.
    pub name: String,
    /// Slug of the tenant.
    pub tenant: String,
    /// Holds the access token of a session.
    pub caller: Caller,
    /// The tokens as the login answered them.
    pub tokens: Value,
}

impl TestApp {
    /// Makes a tenant.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn tenant(&self, slug: &str) -> Value {
        let wish = json!({ "slug": slug, "display_name": slug });
        let answer = self.operator().post("/api/identity/tenants", &wish).await;
        answer.expect(201).json()
    }

    /// Makes a user with roles and logs in, through whatever steps the login asks for.
    ///
    /// # Panics
    /// When a step fails.
    pub async fn person(&self, name: &str, tenant: &str, roles: &[&str]) -> Person {
        let wish = json!({ "username": name, "tenant": tenant, "roles": roles });
        let operator = self.operator();
        let user = operator.post("/api/identity/users", &wish).await;
        let user = user.expect(201).json();
        let id = user["id"].as_str().expect("a user has an id").to_owned();
        let how = json!({ "how": "temporary" });
        let path = format!("/api/identity/users/{id}/reset-password");
        let handed = operator.post(&path, &how).await.expect(200).json();
        let temporary = handed["password"].as_str().expect("a temporary password");
        let tokens = self.log_in(name, tenant, temporary).await;
        Person {
            id,
            name: name.to_owned(),
            tenant: tenant.to_owned(),
            caller: self.holder(tokens["access_token"].as_str().expect("a token")),
            tokens,
        }
    }

    /// Logs in with a password; answers the tokens.
    ///
    /// # Panics
    /// When a step fails, or asks for something that nobody here has.
    pub async fn log_in(&self, name: &str, tenant: &str, password: &str) -> Value {
        let nobody = self.anonymous();
        let wish = json!({
            "identifier": name, "tenant": tenant, "password": password,
            "device": { "platform": "cli", "name": "test" },
        });
        let answer = nobody.post("/api/identity/login/password", &wish).await;
        let mut result = answer.expect(200).json();
        loop {
            let ticket = result["ticket"].clone();
            let (path, body) = match result["status"].as_str() {
                Some("ok") => return result["tokens"].clone(),
                Some("password_change_required") => (
                    "/api/identity/login/password-change",
                    json!({ "ticket": ticket, "new_password": PASSWORD }),
                ),
                Some("enrol_required") => {
                    let begun = nobody
                        .post("/api/identity/login/mfa/totp", &json!({ "ticket": ticket }))
                        .await
                        .expect(200)
                        .json();
                    let secret = begun["secret"].as_str().expect("a secret");
                    let code = totp(secret, 0);
                    (
                        "/api/identity/login/mfa/totp/confirm",
                        json!({ "ticket": ticket, "code": code }),
                    )
                }
                other => panic!("the login answered {other:?}: {result}"),
            };
            result = nobody.post(path, &body).await.expect(200).json();
        }
    }
}

/// The code of an authenticator app, some steps of 30 s from now (RFC 6238).
///
/// # Panics
/// When the secret is not base32.
#[must_use]
pub fn totp(secret: &str, steps: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("the clock is behind 1970").as_secs() / 30;
    let step = now.saturating_add_signed(steps);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &base32(secret));
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    let at = usize::from(bytes[19] & 15);
    let word = u32::from_be_bytes([bytes[at] & 127, bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    format!("{:06}", word % 1_000_000)
}

fn base32(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut out, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for letter in text.bytes().filter(|b| *b != b' ' && *b != b'=') {
        let value = ALPHABET.iter().position(|a| *a == letter).expect("base32");
        held = held << 5 | u32::try_from(value).expect("below 32");
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(held >> bits & 255).expect("a byte"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_base32() {
        assert_eq!(base32("MZXW6YTBOI"), b"foobar");
    }
}
