//! Numbers that belong to people: telephone numbers, identity cards of the People's Republic of China, payment cards.

use portico_base::mask;

/// What stands at a digit.
pub(super) enum Found {
    /// From, to, and what stands there instead.
    Masked(usize, usize, String),
    /// Nothing; go on behind it.
    Skip(usize),
}

/// Looks at the run of digits that begins at `from`, which is a digit.
pub(super) fn at(text: &str, from: usize) -> Found {
    let bytes = text.as_bytes();
    let run = digits(bytes, from);
    let after_word = from > 0 && is_word(bytes[from - 1]);
    if after_word {
        return Found::Skip(run);
    }
    let len = run - from;
    if len == 17 && matches!(bytes.get(run), Some(b'X' | b'x')) && !word_at(bytes, run + 1) {
        if is_identity(&bytes[from..run]) {
            return identity(text, from, run + 1);
        }
    } else if word_at(bytes, run) {
        return Found::Skip(run);
    }
    if len == 18 && is_identity(&bytes[from..run]) {
        return identity(text, from, run);
    }
    let international = from > 0 && bytes[from - 1] == b'+';
    if international && (8..=15).contains(&len) {
        return Found::Masked(from, run, mask::phone(&text[from..run]));
    }
    if len == 11 && bytes[from] == b'1' && (b'3'..=b'9').contains(&bytes[from + 1]) {
        return Found::Masked(from, run, mask::phone(&text[from..run]));
    }
    if let Some(to) = card_end(bytes, from) {
        let tail = text[from..to].replace([' ', '-'], "");
        return Found::Masked(from, to, format!("****{}", &tail[tail.len() - 4..]));
    }
    if let Some(to) = spaced_phone(bytes, from, international) {
        let plain = text[from..to].replace([' ', '-'], "");
        return Found::Masked(from, to, mask::phone(&plain));
    }
    Found::Skip(run)
}

fn identity(text: &str, from: usize, to: usize) -> Found {
    let masked = format!("{}********{}", &text[from..from + 6], &text[to - 4..to]);
    Found::Masked(from, to, masked)
}

/// Region, date of birth, sequence: 17 digits (GB 11643); the check digit is not asked for, so that a
/// mistyped number is hidden as well.
fn is_identity(digits: &[u8]) -> bool {
    let number = |range: std::ops::Range<usize>| {
        digits[range]
            .iter()
            .fold(0_u32, |n, d| n * 10 + u32::from(d - b'0'))
    };
    (b'1'..=b'8').contains(&digits[0])
        && (1800..=2199).contains(&number(6..10))
        && (1..=12).contains(&number(10..12))
        && (1..=31).contains(&number(12..14))
}

/// 13 to 19 digits, in groups of at least three by one space or dash or in one piece, that pass the Luhn
/// test (ISO/IEC 7812-1) and begin like a payment card; so that few other numbers are hit.
fn card_end(bytes: &[u8], from: usize) -> Option<usize> {
    if !matches!(bytes[from], b'2'..=b'6') {
        return None;
    }
    let (to, count) = grouped(bytes, from, 3);
    if !(13..=19).contains(&count) || word_at(bytes, to) {
        return None;
    }
    let mut sum = 0;
    let numbers = bytes[from..to].iter().rev().filter(|b| b.is_ascii_digit());
    for (i, digit) in numbers.enumerate() {
        let mut n = u32::from(digit - b'0');
        if i % 2 == 1 {
            n *= 2;
            if n > 9 {
                n -= 9;
            }
        }
        sum += n;
    }
    (sum % 10 == 0).then_some(to)
}

/// `138 1234 5678`, `+86 138-1234-5678`.
fn spaced_phone(bytes: &[u8], from: usize, international: bool) -> Option<usize> {
    let (to, count) = grouped(bytes, from, if international { 1 } else { 3 });
    let mobile = count == 11 && bytes[from] == b'1' && (b'3'..=b'9').contains(&bytes[from + 1]);
    let legal = mobile || international && (8..=15).contains(&count);
    (legal && !word_at(bytes, to)).then_some(to)
}

/// End and number of digits of groups that begin at `from`, each at least `least` long.
fn grouped(bytes: &[u8], from: usize, least: usize) -> (usize, usize) {
    let mut to = digits(bytes, from);
    let mut count = to - from;
    while count < 20 && matches!(bytes.get(to), Some(b' ' | b'-')) {
        let next = digits(bytes, to + 1);
        if next - to - 1 < least {
            break;
        }
        count += next - to - 1;
        to = next;
    }
    (to, count)
}

fn digits(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn word_at(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|b| is_word(*b))
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
