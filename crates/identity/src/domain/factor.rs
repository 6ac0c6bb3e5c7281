//! Second factors: codes by time (RFC 4226, RFC 6238) and recovery codes; how often one may be wrong.

use aws_lc_rs::hmac;
use chrono::Duration;
use portico_base::secret::constant_time_eq;
use portico_base::{Random, Secret, Timestamp};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

/// Length of a TOTP secret: what RFC 4226 §4 recommends for SHA-1.
pub(crate) const SECRET_BYTES: usize = 20;
/// Recovery codes that a user gets at once.
pub(crate) const RECOVERY_CODES: usize = 10;

/// Seconds of one step.
const STEP_S: i64 = 30;
const DIGITS: u32 = 6;
/// Steps before and after the present one that are taken, for clocks that differ.
const WINDOW: i64 = 1;

/// RFC 4648 §6.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Crockford's, which has no `i`, `l`, `o` and `u`.
const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of a recovery code without its dashes: 80 bits.
const RECOVERY_LENGTH: usize = 16;

/// A new TOTP secret.
pub(crate) fn new_secret(random: &dyn Random) -> Secret<Vec<u8>> {
    let mut bytes = vec![0; SECRET_BYTES];
    random.fill(&mut bytes);
    Secret::new(bytes)
}

/// The step that a code belongs to, among those around `now` that are later than the last one used.
pub(crate) fn step_of_code(secret: &[u8], code: &str, last: i64, now: Timestamp) -> Option<i64> {
    let typed: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let present = now.timestamp().div_euclid(STEP_S);
    // All steps are computed, so that the time tells nothing of which one it was.
    let mut found = None;
    for step in (present - WINDOW)..=(present + WINDOW) {
        let right = totp(secret, step);
        if constant_time_eq(right.as_bytes(), typed.as_bytes()) && step > last {
            found = Some(step);
        }
    }
    found
}

/// The text that authenticator apps read: secret, issuer and account.
pub(crate) fn otpauth(issuer: &str, account: &str, secret: &[u8]) -> Secret<String> {
    let part = |text: &str| -> String {
        // A colon ends the issuer in a label, so that neither part may have one.
        let text: String = text.chars().filter(|c| *c != ':').take(64).collect();
        url::form_urlencoded::byte_serialize(text.as_bytes())
            .collect::<String>()
            .replace('+', "%20")
    };
    let (issuer, account) = (part(issuer), part(account));
    Secret::new(format!(
        "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}",
        base32(secret).expose()
    ))
}

/// A secret as people type it.
pub(crate) fn base32(bytes: &[u8]) -> Secret<String> {
    Secret::new(encode(bytes, BASE32))
}

/// A QR code of a text as SVG; nothing when it is longer than a QR code holds.
pub(crate) fn qr_svg(text: &str) -> Option<String> {
    let code = qrcode::QrCode::new(text.as_bytes()).ok()?;
    let image = code
        .render::<qrcode::render::svg::Color<'_>>()
        .min_dimensions(240, 240)
        .build();
    Some(image)
}

/// A new recovery code: `xxxx-xxxx-xxxx-xxxx`.
pub(crate) fn new_recovery_code(random: &dyn Random) -> Secret<String> {
    let mut bytes = [0; RECOVERY_LENGTH * 5 / 8];
    random.fill(&mut bytes);
    let mut plain = encode(&bytes, CROCKFORD);
    let shown = (0..RECOVERY_LENGTH)
        .step_by(4)
        .map(|at| &plain[at..at + 4])
        .collect::<Vec<_>>()
        .join("-");
    bytes.zeroize();
    plain.zeroize();
    Secret::new(shown)
}

/// What is stored of a recovery code. Dashes, spaces and case do not matter, and `o`, `i` and `l` are
/// read as the digits that they look like (Crockford).
pub(crate) fn recovery_hash(salt: &[u8], code: &str) -> [u8; 32] {
    let mut plain: String = code
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            c => c,
        })
        .collect();
    let hash = Sha256::new()
        .chain_update(salt)
        .chain_update(plain.as_bytes())
        .finalize();
    plain.zeroize();
    hash.into()
}

/// Wrong codes of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    pub failures: u32,
    /// The first of them.
    pub since: Option<Timestamp>,
    pub locked_until: Option<Timestamp>,
}

impl Tries {
    /// Seconds until codes are taken again, while they are not.
    pub(crate) fn locked_s(&self, now: Timestamp) -> Option<u32> {
        let left = self.locked_until? - now;
        (left > Duration::zero()).then(|| {
            let s = left.num_seconds() + i64::from(left.subsec_nanos() > 0);
            u32::try_from(s).unwrap_or(u32::MAX)
        })
    }

    /// After one more wrong code: `most` of them within `span` lock the factor for as long again (ID-78).
    pub(crate) fn failed(self, now: Timestamp, most: u32, span: Duration) -> Self {
        let going_on = self.since.is_some_and(|since| now - since < span);
        let failures = if going_on { self.failures + 1 } else { 1 };
        if failures >= most {
            return Self {
                locked_until: Some(now + span),
                ..Self::default()
            };
        }
        Self {
            failures,
            since: self.since.filter(|_| going_on).or(Some(now)),
            locked_until: self.locked_until,
        }
    }
}

/// The code of a step (RFC 6238 §4.2).
fn totp(secret: &[u8], step: i64) -> String {
    let value = hotp(secret, u64::try_from(step).unwrap_or(0));
    format!("{:06}", value % 10_u32.pow(DIGITS))
}

/// The code of a moment, as an app shows it.
#[cfg(test)]
pub(crate) fn code_at(secret: &[u8], now: Timestamp) -> String {
    totp(secret, now.timestamp().div_euclid(STEP_S))
}

/// HMAC-SHA-1 of a counter, truncated to 31 bits (RFC 4226 §5.3).
fn hotp(secret: &[u8], counter: u64) -> u32 {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &counter.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[tag.len() - 1] & 0x0f);
    u32::from_be_bytes([tag[at], tag[at + 1], tag[at + 2], tag[at + 3]]) & 0x7fff_ffff
}

/// Five bits a character, without padding.
fn encode(bytes: &[u8], alphabet: &[u8; 32]) -> String {
    let bit = |i: usize| bytes.get(i / 8).map_or(0, |b| (b >> (7 - i % 8)) & 1);
    (0..(bytes.len() * 8).div_ceil(5))
        .map(|group| (0..5).fold(0, |value, i| value << 1 | bit(group * 5 + i)))
        .map(|value| char::from(alphabet[usize::from(value)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use portico_base::SeededRandom;
    use portico_base::clock::from_unix_us;

    use super::*;

    const KEY: &[u8] = b"12345678901234567890";
    const SPAN: Duration = Duration::minutes(15);

    fn at(unix_s: i64) -> Timestamp {
        from_unix_us(unix_s * 1_000_000)
    }

    #[test]
    fn rfc_4226_appendix_d() {
        let codes = [
            755_224, 287_082, 359_152, 969_429, 338_314, 254_676, 287_922, 162_583, 399_871,
            520_489,
        ];
        for (counter, code) in (0..).zip(codes) {
            assert_eq!(hotp(KEY, counter) % 1_000_000, code, "{counter}");
        }
    }

    #[test]
    fn rfc_6238_appendix_b() {
        // Eight digits there: the last six are ours.
        for (unix_s, code) in [
            (59, 94_287_082),
            (1_111_111_109, 7_081_804),
            (1_111_111_111, 14_050_471),
            (1_234_567_890, 89_005_924),
            (2_000_000_000, 69_279_037),
            (20_000_000_000, 65_353_130),
        ] {
            let step = unix_s / STEP_S;
            assert_eq!(hotp(KEY, u64::try_from(step).unwrap()) % 100_000_000, code);
            let six = format!("{:06}", code % 1_000_000);
            assert_eq!(step_of_code(KEY, &six, 0, at(unix_s)), Some(step));
        }
    }

    #[test]
    fn a_code_is_good_one_step_around_and_never_again() {
        let (now, step) = (at(3_000), 100);
        let code = |s| totp(KEY, s);
        for (of, found) in [
            (step - 2, None),
            (step - 1, Some(step - 1)),
            (step, Some(step)),
            (step + 1, Some(step + 1)),
            (step + 2, None),
        ] {
            assert_eq!(step_of_code(KEY, &code(of), 0, now), found, "{of}");
        }
        assert_eq!(step_of_code(KEY, &code(step), step, now), None);
        assert_eq!(step_of_code(KEY, &code(step - 1), step, now), None);
        assert_eq!(
            step_of_code(KEY, &code(step + 1), step, now),
            Some(step + 1)
        );
        let spaced = format!("{} {}", &code(step)[..3], &code(step)[3..]);
        assert_eq!(step_of_code(KEY, &spaced, 0, now), Some(step));
        for bad in ["", "12345", "0000000", "abcdef", "１２３４５６"] {
            assert_eq!(step_of_code(KEY, bad, 0, now), None, "{bad}");
        }
    }

    #[test]
    fn the_uri_is_what_apps_read() {
        assert_eq!(
            base32(b"12345678901234567890").expose(),
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
        );
        // RFC 4648 §10, without padding.
        for (plain, text) in [
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
        ] {
            assert_eq!(base32(plain.as_bytes()).expose(), text);
        }
        let uri = otpauth("Häuser: & Co", "me@example.com", KEY);
        assert_eq!(
            uri.expose(),
            "otpauth://totp/H%C3%A4user%20%26%20Co:me%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=H%C3%A4user%20%26%20Co&algorithm=SHA1&digits=6&period=30"
        );
        let svg = qr_svg(uri.expose()).unwrap();
        assert!(svg.contains("<svg") && !svg.contains("GEZDG"), "{svg}");
        assert!(qr_svg(&"x".repeat(5_000)).is_none());
    }

    #[test]
    fn recovery_codes_are_read_as_people_write_them() {
        let random = SeededRandom::new(5);
        let code = new_recovery_code(&random);
        let text = code.expose();
        assert_eq!((text.len(), text.split('-').count()), (19, 4), "{text}");
        assert!(!text.contains(['i', 'l', 'o', 'u']));
        let hash = recovery_hash(b"salt", text);
        assert_eq!(
            hash,
            recovery_hash(b"salt", &text.to_uppercase().replace('-', " "))
        );
        assert_ne!(hash, recovery_hash(b"other", text));
        assert_ne!(text, new_recovery_code(&random).expose());
        assert_eq!(recovery_hash(b"s", "O1L0"), recovery_hash(b"s", "0i1o"));
    }

    #[test]
    fn five_wrong_codes_lock_the_factor() {
        let start = at(1_000_000);
        let mut tries = Tries::default();
        for n in 0..4 {
            tries = tries.failed(start + Duration::minutes(n), 5, SPAN);
            assert_eq!(tries.locked_s(start + Duration::minutes(n)), None);
        }
        let fifth = start + Duration::minutes(4);
        tries = tries.failed(fifth, 5, SPAN);
        assert_eq!(tries.locked_s(fifth), Some(900));
        assert_eq!(
            tries.locked_s(fifth + Duration::milliseconds(899_001)),
            Some(1)
        );
        assert_eq!(tries.locked_s(fifth + SPAN), None);
        // Slow guesses are counted anew.
        let mut tries = Tries::default();
        for n in 0..20 {
            let now = start + Duration::minutes(4 * n);
            tries = tries.failed(now, 5, SPAN);
            assert_eq!(tries.locked_s(now), None, "{n}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(code in ".{0,40}", last in 0_i64..1_000, now in 0_i64..100_000) {
            if let Some(step) = step_of_code(KEY, &code, last, at(now)) {
                proptest::prop_assert!(step > last && (step - now / STEP_S).abs() <= WINDOW);
            }
            proptest::prop_assert_eq!(recovery_hash(b"s", &code), recovery_hash(b"s", &code));
        }
    }
}
