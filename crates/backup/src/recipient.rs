//! Recipients and identities in age's text form: `age1…` and `AGE-SECRET-KEY-1…` (bech32, BIP 173), so
//! that a pair made by `age-keygen` can be used. The file itself is ours, not age's.

use std::fmt;
use std::str::FromStr;

use portico_base::Secret;

use crate::error::{BackupError, Result};
use crate::key;

const PUBLIC: &str = "age";
const PRIVATE: &str = "age-secret-key-";
const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// The public half: for whom a backup is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// The private half: who can read it.
#[derive(Debug, Clone)]
pub struct Identity {
    secret: Secret<[u8; 32]>,
    recipient: Recipient,
}

impl Recipient {
    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = BackupError;

    fn from_str(text: &str) -> Result<Self> {
        decode(PUBLIC, text.trim())
            .map(Self)
            .ok_or_else(|| BackupError::BadKey("a recipient looks like age1…".to_owned()))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(PUBLIC, &self.0))
    }
}

impl Identity {
    /// The identities of a file as `age-keygen` writes it: a line each, `#` begins a comment.
    ///
    /// # Errors
    /// When a line is something else, or there is none.
    pub fn parse_file(text: &str) -> Result<Vec<Self>> {
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let all = keys.map(Self::parse).collect::<Result<Vec<_>>>()?;
        if all.is_empty() {
            return Err(BackupError::BadKey("the file holds no identity".to_owned()));
        }
        Ok(all)
    }

    fn parse(text: &str) -> Result<Self> {
        let bytes = decode(PRIVATE, text).ok_or_else(|| {
            BackupError::BadKey("an identity looks like AGE-SECRET-KEY-1…".to_owned())
        })?;
        Ok(Self {
            recipient: Recipient(key::public_of(&bytes)?),
            secret: Secret::new(bytes),
        })
    }

    /// The public half.
    #[must_use]
    pub const fn recipient(&self) -> Recipient {
        self.recipient
    }

    pub(crate) const fn secret(&self) -> &[u8; 32] {
        self.secret.expose()
    }
}

fn encode(prefix: &str, bytes: &[u8; 32]) -> String {
    let mut data = regroup(bytes, 8, 5, true).unwrap_or_default();
    let mut checked = expanded(prefix);
    checked.extend_from_slice(&data);
    checked.extend_from_slice(&[0; 6]);
    let sum = checksum(&checked) ^ 1;
    data.extend((0..6_u32).map(|i| low5(sum >> (5 * (5 - i)))));
    let letters = data.iter().map(|d| char::from(ALPHABET[usize::from(*d)]));
    format!("{prefix}1{}", letters.collect::<String>())
}

fn decode(prefix: &str, text: &str) -> Option<[u8; 32]> {
    let lower = text.to_ascii_lowercase();
    // One case or the other, not both, and not longer than any key.
    if (text != lower && text != text.to_ascii_uppercase()) || text.len() > 100 {
        return None;
    }
    let data = lower.strip_prefix(prefix)?.strip_prefix('1')?;
    let digit = |c: u8| ALPHABET.iter().position(|a| *a == c);
    let data: Vec<u8> = data
        .bytes()
        .map(|c| digit(c).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()?;
    let mut checked = expanded(prefix);
    checked.extend_from_slice(&data);
    if checksum(&checked) != 1 {
        return None;
    }
    let (payload, _) = data.split_at_checked(data.len().checked_sub(6)?)?;
    regroup(payload, 5, 8, false)?.try_into().ok()
}

fn expanded(prefix: &str) -> Vec<u8> {
    let high = prefix.bytes().map(|b| b >> 5);
    let low = prefix.bytes().map(|b| b & 31);
    high.chain([0]).chain(low).collect()
}

fn checksum(data: &[u8]) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    data.iter().fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = ((sum & 0x01ff_ffff) << 5) ^ u32::from(*value);
        let bits = GENERATOR.iter().enumerate();
        bits.filter(|(i, _)| (top >> i) & 1 == 1)
            .fold(sum, |sum, (_, g)| sum ^ g)
    })
}

/// Bits in groups of `from` to groups of `to`; what is left over must be zero unless it is padded.
fn regroup(data: &[u8], from: u32, to: u32, pad: bool) -> Option<Vec<u8>> {
    let (mut held, mut bits) = (0_u32, 0);
    let mut out = Vec::new();
    let mask = (1 << to) - 1;
    for value in data {
        held = (held << from) | u32::from(*value);
        bits += from;
        while bits >= to {
            bits -= to;
            out.push(u8::try_from((held >> bits) & mask).ok()?);
        }
        held &= (1 << bits) - 1;
    }
    if pad && bits > 0 {
        out.push(u8::try_from((held << (to - bits)) & mask).ok()?);
    } else if bits >= from || held != 0 {
        return None;
    }
    Some(out)
}

fn low5(value: u32) -> u8 {
    u8::try_from(value & 31).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair that age-keygen made.
    const SECRET: &str =
        "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    const PUBLIC_HALF: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

    #[test]
    fn a_pair_of_age_is_read_and_written() {
        let file = format!("# created: 2026-01-01\n# public key: {PUBLIC_HALF}\n{SECRET}\n");
        let all = Identity::parse_file(&file).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].recipient().to_string(), PUBLIC_HALF);
        assert_eq!(all[0].secret(), &[0x42; 32]);
        let recipient: Recipient = PUBLIC_HALF.parse().unwrap();
        assert_eq!(recipient, all[0].recipient());
        assert!(!format!("{:?}", all[0]).contains("GFPYY"));
    }

    #[test]
    fn every_wrong_letter_is_found() {
        for i in 0..PUBLIC_HALF.len() {
            let mut text = PUBLIC_HALF.as_bytes().to_vec();
            text[i] = if text[i] == b'q' { b'p' } else { b'q' };
            let text = String::from_utf8(text).unwrap();
            assert!(text.parse::<Recipient>().is_err(), "{i}");
            assert!(PUBLIC_HALF[..i].parse::<Recipient>().is_err(), "cut {i}");
        }
        for bad in ["", "age1", SECRET, "Age1zvkyg", "ä"] {
            assert!(bad.parse::<Recipient>().is_err(), "{bad}");
        }
        assert!(Identity::parse_file("# nothing\n").is_err());
        assert!(Identity::parse_file(PUBLIC_HALF).is_err());
    }
}
