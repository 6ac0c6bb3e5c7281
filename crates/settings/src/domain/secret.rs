//! Secret values: sealed for their row, and told apart by a fingerprint (CT-9).

use aws_lc_rs::hmac;
use portico_base::Random;
use portico_base::envelope::{MasterKeys, OpenError, Place};
use portico_base::id::TENANT_SYSTEM;
use serde_json::Value;
use uuid::Uuid;

/// A key that everybody knows, so that two installations can be compared; 32 bits tell values apart and
/// give next to nothing away about one that has the entropy of a secret.
const FINGERPRINT_KEY: &[u8] = b"portico/settings/fingerprint/1";

/// First eight hex digits of the value's HMAC.
pub(crate) fn fingerprint(value: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, FINGERPRINT_KEY);
    let text = plain(value);
    hex::encode(&hmac::sign(&key, text.as_bytes()).as_ref()[..4])
}

/// Text as it is, everything else as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A sealed value with the id of its master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub text: String,
    pub kid: String,
}

/// Which row a value is sealed for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Row<'a> {
    /// The value in force.
    Value(Uuid, &'a str),
    /// A version in the history.
    History(Uuid, &'a str, u64),
}

impl Row<'_> {
    const fn table(self) -> &'static str {
        match self {
            Self::Value(..) => "settings",
            Self::History(..) => "setting_history",
        }
    }

    fn text(self) -> String {
        match self {
            // The installation's rows are named by their key alone (P§10).
            Self::Value(TENANT_SYSTEM, key) => key.to_owned(),
            Self::Value(scope, key) => format!("{scope}/{key}"),
            Self::History(scope, key, version) => format!("{scope}/{key}/{version}"),
        }
    }
}

/// Seals a value.
pub(crate) fn seal(keys: &MasterKeys, row: Row<'_>, value: &Value, random: &dyn Random) -> Sealed {
    let text = row.text();
    let place = Place {
        table: row.table(),
        row: &text,
        column: "value",
    };
    // Text is sealed as it is, so that the golden value of P§10 is one of ours.
    let plain = match value {
        Value::String(text) if !text.starts_with('\0') => text.clone(),
        other => format!("\0{other}"),
    };
    Sealed {
        text: keys.seal(place, plain.as_bytes(), random),
        kid: keys.current().to_owned(),
    }
}

/// Opens a value.
pub(crate) fn open(keys: &MasterKeys, row: Row<'_>, sealed: &str) -> Result<Value, OpenError> {
    let text = row.text();
    let place = Place {
        table: row.table(),
        row: &text,
        column: "value",
    };
    let plain = keys.open(place, sealed)?;
    let text = std::str::from_utf8(plain.expose()).map_err(|_| OpenError)?;
    match text.strip_prefix('\0') {
        None => Ok(Value::String(text.to_owned())),
        Some(json) => serde_json::from_str(json).map_err(|_| OpenError),
    }
}

#[cfg(test)]
mod tests {
    use portico_base::SystemRandom;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_golden_value_opens_and_rows_cannot_be_swapped() {
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let keys = MasterKeys::new("mk1", key);
        let row = Row::Value(TENANT_SYSTEM, "identity.sms.aliyun.access_key_secret");
        let golden = "penc_AQNtazEAAQIDBAUGBwgJCgvOxjEKxAnFlAK5YPshq8RzU6bh-1Tk2DO703cjMD775L-Rqw";
        assert_eq!(open(&keys, row, golden), Ok(json!("YourAccessKeySecret")));
        let other = Row::Value(Uuid::nil(), "identity.sms.aliyun.access_key_secret");
        assert!(open(&keys, other, golden).is_err());
    }

    #[test]
    fn values_of_every_kind_come_back() {
        let keys = MasterKeys::new("mk1", [3; 32]);
        let row = Row::History(Uuid::nil(), "a.b", 7);
        for value in [
            json!("x"),
            json!(""),
            json!({"a": [1, null]}),
            json!("\u{0}[]"),
        ] {
            let sealed = seal(&keys, row, &value, &SystemRandom);
            assert_eq!(open(&keys, row, &sealed.text), Ok(value));
        }
    }

    #[test]
    fn fingerprints_are_the_same_everywhere() {
        assert_eq!(fingerprint(&json!("YourAccessKeySecret")).len(), 8);
        assert_eq!(fingerprint(&json!("a")), fingerprint(&json!("a")));
        assert_ne!(fingerprint(&json!("a")), fingerprint(&json!("b")));
    }
}
