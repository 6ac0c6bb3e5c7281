//! Login codes: how one is made, what is stored instead of it, and the transaction that it belongs to (ID-51).

use aws_lc_rs::hmac;
use portico_base::envelope::MasterKeys;
use portico_base::secret::constant_time_eq;
use portico_base::{Random, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

/// Digits of a code.
pub(crate) const DIGITS: usize = 6;
const CODES: u32 = 1_000_000;
/// Random numbers from here on are thrown away: below it every code is equally likely.
const FAIR: u32 = u32::MAX - u32::MAX % CODES;

/// What a code is good for. A code for one is none for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = OtpPurpose)]
pub(crate) enum Purpose {
    /// Logging in, or registering.
    Login,
    /// Showing that a number is one's own.
    Bind,
    /// A new password.
    Reset,
}

impl Purpose {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Bind => "bind",
            Self::Reset => "reset",
        }
    }
}

/// A transaction as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Otp {
    pub id: Uuid,
    pub tenant: Uuid,
    pub purpose: Purpose,
    /// Keyed hash of the number.
    pub phone_hash: [u8; 32],
    /// Envelope of the number.
    pub phone: String,
    pub code_mac: [u8; 32],
    /// Of the code that a newer one replaced.
    pub previous_mac: Option<[u8; 32]>,
    /// The client's own name for its device, or what else binds it; empty for nothing.
    pub device: String,
    /// With [`Purpose::Bind`]: whose number it is to be.
    pub user: Option<Uuid>,
    pub ip: Option<String>,
    pub tries: u32,
    pub resend_no: u32,
    pub created_at: Timestamp,
    pub resend_at: Timestamp,
    pub expires_at: Timestamp,
    pub consumed_at: Option<Timestamp>,
}

/// A code of six digits, each as likely as the other: by rejection, not by remainder.
pub(crate) fn new_code(random: &dyn Random) -> Secret<String> {
    loop {
        let mut bytes = [0; 4];
        random.fill(&mut bytes);
        let number = u32::from_le_bytes(bytes);
        if number < FAIR {
            return Secret::new(format!("{:06}", number % CODES));
        }
    }
}

/// True for six digits.
pub(crate) fn is_code(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit())
}

/// What is stored instead of a code: useless without the master key, where a plain hash has only 10^6
/// candidates.
pub(crate) fn mac(
    keys: &MasterKeys,
    purpose: Purpose,
    phone: &str,
    transaction: Uuid,
    code: &Secret<String>,
) -> Result<[u8; 32]> {
    let pepper = keys
        .derive(keys.current(), "portico/otp/1")
        .map_err(|e| Error::Internal(e.to_string()))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, pepper.expose());
    let mut mac = hmac::Context::with_key(&key);
    for part in [
        "portico/otp/1|",
        purpose.as_str(),
        "|",
        phone,
        "|",
        &transaction.simple().to_string(),
        "|",
        code.expose(),
    ] {
        mac.update(part.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(mac.sign().as_ref());
    Ok(out)
}

/// What somebody who typed a code was right about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    Right,
    /// It was right until a newer one was sent.
    Replaced,
    Wrong,
}

impl Otp {
    /// Judges a code by its MAC, in constant time.
    pub(crate) fn judge(&self, shown: &[u8; 32]) -> Guess {
        let right = constant_time_eq(shown, &self.code_mac);
        let replaced = self
            .previous_mac
            .as_ref()
            .is_some_and(|mac| constant_time_eq(shown, mac));
        match (right, replaced) {
            (true, _) => Guess::Right,
            (false, true) => Guess::Replaced,
            (false, false) => Guess::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use portico_base::SeededRandom;

    use super::*;

    /// The golden value of the reference (P§5).
    #[test]
    fn golden_mac() {
        let mut key = [0; 32];
        for (i, byte) in key.iter_mut().enumerate() {
            *byte = u8::try_from(i).unwrap();
        }
        let keys = MasterKeys::new("mk1", key);
        let pepper = keys.derive("mk1", "portico/otp/1").unwrap();
        assert_eq!(
            hex::encode(pepper.expose()),
            "1c4c28ed97e25f7916919c430e5d9d607c467bc2ba6cec01246e2daa98bf118a"
        );
        let mac = mac(
            &keys,
            Purpose::Login,
            "+8613812345678",
            "0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6072".parse().unwrap(),
            &Secret::from("048213"),
        )
        .unwrap();
        assert_eq!(
            hex::encode(mac),
            "5fb28e48a660d063d4a82d2709123cb2b417f136eeef91c4d0122783301e8d81"
        );
    }

    struct Numbers(Mutex<Vec<u32>>);

    impl Random for Numbers {
        fn fill(&self, out: &mut [u8]) {
            let number = self.0.lock().unwrap().remove(0);
            out.copy_from_slice(&number.to_le_bytes());
        }
    }

    #[test]
    fn numbers_that_would_favour_some_codes_are_thrown_away() {
        assert_eq!(FAIR % CODES, 0);
        let random = Numbers(Mutex::new(vec![u32::MAX, FAIR, 4_294_000_000, 48_213]));
        assert_eq!(new_code(&random).expose(), "048213", "leading zeros stay");
        let random = Numbers(Mutex::new(vec![FAIR - 1]));
        assert_eq!(new_code(&random).expose(), "999999");
    }

    #[test]
    fn codes_have_six_digits_and_differ() {
        let random = SeededRandom::new(11);
        let codes: HashSet<String> = (0..1_000)
            .map(|_| new_code(&random).expose().clone())
            .collect();
        assert!(codes.iter().all(|c| is_code(c)));
        assert!(codes.len() > 990, "{}", codes.len());
        assert!(!is_code("12345") && !is_code("12345a") && !is_code("１２３４５６"));
    }

    #[test]
    fn a_code_is_bound_to_purpose_phone_and_transaction() {
        let keys = MasterKeys::new("mk1", [7; 32]);
        let code = Secret::from("048213");
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let phone = "+8613812345678";
        let all: HashSet<[u8; 32]> = [
            mac(&keys, Purpose::Login, phone, one, &code),
            mac(&keys, Purpose::Reset, phone, one, &code),
            mac(&keys, Purpose::Login, "+8613812345679", one, &code),
            mac(&keys, Purpose::Login, phone, two, &code),
        ]
        .into_iter()
        .map(Result::unwrap)
        .collect();
        assert_eq!(all.len(), 4);
    }
}
