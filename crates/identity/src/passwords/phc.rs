//! Stored password hashes: Argon2 in PHC form, and what imports bring (bcrypt, PBKDF2-SHA256, scrypt).

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use portico_base::Secret;
use portico_base::secret::constant_time_eq;

use super::{Cost, Memory, SALT};

/// Bytes of a tag.
const TAG: usize = 32;

/// What a row may cost at most; an import must not bring work for minutes.
const MOST_M_KIB: u32 = 262_144;
const MOST_T: u32 = 16;
const MOST_P: u32 = 16;
const MOST_BCRYPT: u32 = 15;
const MOST_ROUNDS: u32 = 2_000_000;
/// 128 · r · 2^ln bytes.
const MOST_SCRYPT_BYTES: u64 = 256 << 20;
const MOST_SCRYPT_P: u32 = 16;

/// A stored hash, taken apart.
pub(super) enum Stored {
    Argon2(Argon2Row),
    Bcrypt(String),
    Pbkdf2 {
        rounds: NonZeroU32,
        salt: Vec<u8>,
        tag: Vec<u8>,
    },
    Scrypt {
        params: scrypt::Params,
        salt: Vec<u8>,
        tag: Vec<u8>,
    },
}

pub(super) struct Argon2Row {
    algorithm: Algorithm,
    version: Version,
    cost: Cost,
    salt: Vec<u8>,
    tag: Vec<u8>,
}

/// True for a cost that is neither too weak nor out of all proportion.
pub(super) fn in_bounds(cost: Cost) -> bool {
    (7_168..=MOST_M_KIB).contains(&cost.m_kib)
        && (1..=MOST_T).contains(&cost.t)
        && (1..=MOST_P).contains(&cost.p)
}

/// Makes an Argon2id string.
pub(super) fn make(
    password: &str,
    salt: &[u8; SALT],
    cost: Cost,
    memory: &mut Memory,
) -> Option<Secret<String>> {
    let mut tag = [0; TAG];
    argon2(
        (Algorithm::Argon2id, Version::V0x13, cost),
        password,
        salt,
        &mut tag,
        memory,
    )?;
    let mut text = format!("$argon2id$v=19$m={},t={},p={}$", cost.m_kib, cost.t, cost.p);
    STANDARD_NO_PAD.encode_string(salt, &mut text);
    text.push('$');
    STANDARD_NO_PAD.encode_string(tag, &mut text);
    Some(Secret::new(text))
}

/// The work of a verification whose answer is known.
pub(super) fn decoy(password: &str, cost: Cost, memory: &mut Memory) {
    let mut tag = [0; TAG];
    let how = (Algorithm::Argon2id, Version::V0x13, cost);
    // The answer is "wrong" whatever comes out.
    let _ = argon2(how, password, &[0; SALT], &mut tag, memory);
    let _ = constant_time_eq(&tag, &[0; TAG]);
}

/// Takes a stored hash apart.
pub(super) fn parse(text: &str) -> Option<Stored> {
    if text.len() > 512 {
        return None;
    }
    // Django's form has no `$` in front.
    if let Some(rest) = text.strip_prefix("pbkdf2_sha256$") {
        return django(rest);
    }
    let mut parts = text.strip_prefix('$')?.split('$');
    match parts.next()? {
        "argon2id" => argon2_row(Algorithm::Argon2id, parts),
        "argon2i" => argon2_row(Algorithm::Argon2i, parts),
        "2a" | "2b" | "2y" => {
            let cost: u32 = parts.next()?.parse().ok()?;
            let good = cost <= MOST_BCRYPT && text.len() == 60;
            good.then(|| Stored::Bcrypt(text.to_owned()))
        }
        "pbkdf2-sha256" => {
            let first = parts.next()?;
            // PHC writes `i=…`, passlib the bare number and `.` for `+`.
            let rounds = first
                .split(',')
                .find_map(|p| p.strip_prefix("i="))
                .unwrap_or(first);
            let (salt, tag) = (parts.next()?, parts.next()?);
            parts.next().is_none().then_some(())?;
            pbkdf2_row(rounds, bytes(salt)?, bytes(tag)?)
        }
        "scrypt" => scrypt_row(parts),
        _ => None,
    }
}

impl Stored {
    /// Compares in constant time.
    pub(super) fn verify(&self, password: &str, memory: &mut Memory) -> bool {
        match self {
            Self::Argon2(row) => {
                let mut tag = vec![0; row.tag.len()];
                let how = (row.algorithm, row.version, row.cost);
                argon2(how, password, &row.salt, &mut tag, memory).is_some()
                    && constant_time_eq(&tag, &row.tag)
            }
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Pbkdf2 { rounds, salt, tag } => pbkdf2::verify(
                pbkdf2::PBKDF2_HMAC_SHA256,
                *rounds,
                salt,
                password.as_bytes(),
                tag,
            )
            .is_ok(),
            Self::Scrypt { params, salt, tag } => {
                let mut made = vec![0; tag.len()];
                scrypt::scrypt(password.as_bytes(), salt, params, &mut made).is_ok()
                    && constant_time_eq(&made, tag)
            }
        }
    }

    /// True when a new hash would be made the same way.
    pub(super) fn is_current(&self, cost: Cost) -> bool {
        matches!(self, Self::Argon2(row) if row.algorithm == Algorithm::Argon2id
            && row.version == Version::V0x13
            && row.cost == cost
            && row.salt.len() >= SALT
            && row.tag.len() >= TAG)
    }
}

fn argon2(
    (algorithm, version, cost): (Algorithm, Version, Cost),
    password: &str,
    salt: &[u8],
    tag: &mut [u8],
    memory: &mut Memory,
) -> Option<()> {
    let params = Params::new(cost.m_kib, cost.t, cost.p, Some(tag.len())).ok()?;
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    Argon2::new(algorithm, version, params)
        .hash_password_into_with_memory(password.as_bytes(), salt, tag, &mut memory[..blocks])
        .ok()
}

fn argon2_row<'a>(
    algorithm: Algorithm,
    mut parts: impl Iterator<Item = &'a str>,
) -> Option<Stored> {
    let mut next = parts.next()?;
    let mut version = Version::V0x10;
    if let Some(number) = next.strip_prefix("v=") {
        version = match number {
            "16" => Version::V0x10,
            "19" => Version::V0x13,
            _ => return None,
        };
        next = parts.next()?;
    }
    let mut cost = Cost {
        m_kib: 0,
        t: 0,
        p: 0,
    };
    for pair in next.split(',') {
        let (name, value) = pair.split_once('=')?;
        let value = value.parse().ok()?;
        match name {
            "m" => cost.m_kib = value,
            "t" => cost.t = value,
            "p" => cost.p = value,
            // A key id or associated data: not made here, and not to be had.
            _ => return None,
        }
    }
    let (salt, tag) = (bytes(parts.next()?)?, bytes(parts.next()?)?);
    let good = cost.m_kib <= MOST_M_KIB
        && (1..=MOST_T).contains(&cost.t)
        && (1..=MOST_P).contains(&cost.p)
        && cost.m_kib >= 8 * cost.p
        && (8..=64).contains(&salt.len())
        && (16..=64).contains(&tag.len())
        && parts.next().is_none();
    good.then_some(Stored::Argon2(Argon2Row {
        algorithm,
        version,
        cost,
        salt,
        tag,
    }))
}

fn pbkdf2_row(rounds: &str, salt: Vec<u8>, tag: Vec<u8>) -> Option<Stored> {
    let rounds: u32 = rounds.parse().ok()?;
    let good = rounds <= MOST_ROUNDS && !salt.is_empty() && (16..=64).contains(&tag.len());
    good.then_some(Stored::Pbkdf2 {
        rounds: NonZeroU32::new(rounds)?,
        salt,
        tag,
    })
}

/// `pbkdf2_sha256$rounds$salt$tag`; the salt is text, the tag padded base64.
fn django(rest: &str) -> Option<Stored> {
    let mut parts = rest.split('$');
    let (rounds, salt, tag) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(())?;
    pbkdf2_row(rounds, salt.as_bytes().to_vec(), STANDARD.decode(tag).ok()?)
}

fn scrypt_row<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<Stored> {
    let (mut ln, mut r, mut p) = (0_u8, 0_u32, 0_u32);
    for pair in parts.next()?.split(',') {
        let (name, value) = pair.split_once('=')?;
        match name {
            "ln" => ln = value.parse().ok()?,
            "r" => r = value.parse().ok()?,
            "p" => p = value.parse().ok()?,
            _ => return None,
        }
    }
    let (salt, tag) = (bytes(parts.next()?)?, bytes(parts.next()?)?);
    let good = (1..=20).contains(&ln)
        && (1..=64).contains(&r)
        && (128 * u64::from(r)) << ln <= MOST_SCRYPT_BYTES
        && (1..=MOST_SCRYPT_P).contains(&p)
        && (16..=64).contains(&tag.len())
        && parts.next().is_none();
    let params = good.then(|| scrypt::Params::new(ln, r, p).ok())??;
    Some(Stored::Scrypt { params, salt, tag })
}

/// Base64 without padding, also with passlib's `.` for `+`.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        plain.push(if c == '.' { '+' } else { c });
    }
    STANDARD_NO_PAD.decode(plain).ok()
}
