//! An identity of another provider that is linked to a user, and what Apple says about somebody (ID-68).

use portico_base::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The provider's name, of the method and in the table.
pub(crate) const APPLE: &str = "apple";

/// Domain of the addresses that Apple makes for people who hide theirs.
const RELAY: &str = "@privaterelay.appleid.com";

/// Longest display name, in characters.
const NAME_LENGTH: usize = 64;

/// A linked identity as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExternalIdentity {
    pub id: Uuid,
    pub tenant: Uuid,
    pub user: Uuid,
    pub provider: String,
    /// Whose subjects are unique: Apple's team.
    pub issuer_key: String,
    pub subject: String,
    /// The client id that the identity was proved with last.
    pub client_id: String,
    pub email: Option<String>,
    pub email_verified: bool,
    pub is_private_email: bool,
    /// Mail to the private address is forwarded.
    pub email_enabled: bool,
    /// Envelope.
    pub refresh_token: Option<String>,
    /// When Apple made the last statement that proved it, by Apple's clock.
    pub proved_at: Timestamp,
    pub linked_at: Timestamp,
}

/// Somebody as a verified statement of Apple names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppleUser {
    pub team: String,
    /// The one of our client ids that the statement was made for.
    pub client_id: String,
    pub subject: String,
    pub email: Option<String>,
    pub email_verified: bool,
    pub is_private_email: bool,
    /// Unix seconds.
    pub issued_s: i64,
}

impl AppleUser {
    /// The address, when Apple has verified it.
    pub(crate) fn verified_email(&self) -> Option<&str> {
        self.email.as_deref().filter(|_| self.email_verified)
    }

    /// When the statement was made.
    pub(crate) fn issued_at(&self) -> Timestamp {
        portico_base::clock::from_unix_ms(self.issued_s.saturating_mul(1_000))
    }
}

/// True for an address that Apple made.
pub(crate) fn is_relay(address: &str) -> bool {
    address.to_ascii_lowercase().ends_with(RELAY)
}

/// The name that a browser brings at the first consent (`{"name": {"firstName": …, "lastName": …}}`). It is
/// unauthenticated, so it is a suggestion for a display name and nothing else; the address beside it is not read.
pub(crate) fn name_of(user: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct User {
        name: Option<Name>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Name {
        #[serde(default)]
        first_name: String,
        #[serde(default)]
        last_name: String,
    }
    let name = serde_json::from_str::<User>(user).ok()?.name?;
    let (first, last) = (name.first_name.trim(), name.last_name.trim());
    let whole = match (first, last) {
        ("", "") => return None,
        (one, "") | ("", one) => one.to_owned(),
        // Where names are written without spaces, the family's comes first.
        _ if is_unspaced(first) && is_unspaced(last) => format!("{last}{first}"),
        _ => format!("{first} {last}"),
    };
    plain_name(&whole)
}

/// A suggested display name without what a display name must not have; nothing when nothing is left.
pub(crate) fn plain_name(name: &str) -> Option<String> {
    let plain: String = name
        .chars()
        .filter(|c| super::profile::display_name_fault(c.encode_utf8(&mut [0; 4])).is_none())
        .take(NAME_LENGTH)
        .collect();
    let plain = plain.trim();
    (!plain.is_empty()).then(|| plain.to_owned())
}

/// Letters of Chinese, Japanese and Korean.
fn is_unspaced(name: &str) -> bool {
    name.chars().all(|c| {
        matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_suggestions() {
        let of = |first: &str, last: &str| {
            let name = serde_json::json!({"firstName": first, "lastName": last});
            name_of(&serde_json::json!({"name": name, "email": "x@y.zz"}).to_string())
        };
        assert_eq!(of("Anna", "Li").as_deref(), Some("Anna Li"));
        assert_eq!(of("雷", "李").as_deref(), Some("李雷"));
        assert_eq!(of(" Anna ", "").as_deref(), Some("Anna"));
        assert_eq!(of("a\u{202e}b\n", "\u{7}").as_deref(), Some("ab"));
        assert_eq!(of(&"x".repeat(99), "").map(|n| n.len()), Some(64));
        assert_eq!(of("", " "), None);
        for odd in [
            "",
            "{}",
            "[]",
            r#"{"name": 7}"#,
            r#"{"name": {"firstName": {}}}"#,
        ] {
            assert_eq!(name_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn addresses_that_apple_made_are_known() {
        assert!(is_relay("abc@PrivateRelay.appleid.com"));
        assert!(!is_relay("abc@privaterelay.appleid.com.example.com"));
        assert!(!is_relay("privaterelay.appleid.com@example.com"));
    }
}
