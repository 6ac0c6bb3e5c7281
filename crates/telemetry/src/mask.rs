//! Masking of free text in the writer (OB-31): the second net, behind types that cannot be printed.
//!
//! One pass finds `name=value` and `name: value` with secret names (JSON, `Debug` output, headers,
//! query strings, escaped JSON within text), the password of a URL's authority, our own tokens, JWTs
//! and bearer credentials, e-mail addresses, telephone numbers, identity cards and card numbers.

mod number;
mod pair;

use std::borrow::Cow;

use portico_base::mask::{self, MASKED, is_secret_name};

/// Prefixes of tokens that this house gives out, and of what others give out often.
const TOKEN_PREFIXES: &[&str] = &[
    "ptk_", "ptr_", "prt_", "pis_", "pop_", "penc_", "eyJ", "ghp_", "gho_", "xoxb-", "sk-", "AKIA",
];

/// The value of a named field as a log may show it.
#[must_use]
pub fn field<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if is_secret_name(name) {
        Cow::Borrowed(MASKED)
    } else {
        text(value)
    }
}

/// Free text as a log may show it. Borrows when there is nothing to hide, which costs one pass.
#[must_use]
pub fn text(value: &str) -> Cow<'_, str> {
    if is_plain(value) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len());
    let mut scanner = Scanner {
        text: value,
        copied: 0,
        at: 0,
    };
    while scanner.at < value.len() {
        scanner.step(&mut out);
    }
    if scanner.copied == 0 {
        return Cow::Borrowed(value);
    }
    out.push_str(&value[scanner.copied..]);
    Cow::Owned(out)
}

/// True for the dotted codes of our errors (`gateway.no_instance`), which are called `code` as one-time
/// codes are, and are no secrets.
#[must_use]
pub(crate) fn is_dotted_code(value: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'-')
    };
    value.contains('.') && value.split('.').all(word)
}

/// What a byte may begin or end, for [`is_plain`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Digit,
    /// Separates groups of digits.
    Gap,
    /// A name and its value, an address, a URL.
    Separator,
    /// Last byte of a token's prefix, first of a scheme: worth a look around.
    Hint,
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        classes[digit as usize] = Class::Digit;
        digit += 1;
    }
    classes[b' ' as usize] = Class::Gap;
    let mut i = 0;
    while i < b"=:@".len() {
        classes[b"=:@"[i] as usize] = Class::Separator;
        i += 1;
    }
    let mut i = 0;
    while i < b"_-JAbB".len() {
        classes[b"_-JAbB"[i] as usize] = Class::Hint;
        i += 1;
    }
    classes
};

/// True when nothing that a rule could begin with is in the text: letters, short numbers and plain
/// punctuation only. One pass, about half a nanosecond a byte, because nearly all text is plain.
fn is_plain(value: &str) -> bool {
    let bytes = value.as_bytes();
    let mut digits = 0_u32;
    for (i, byte) in bytes.iter().enumerate() {
        match CLASSES[usize::from(*byte)] {
            Class::Plain => digits = 0,
            Class::Digit => {
                digits += 1;
                if digits >= 7 {
                    return false;
                }
            }
            Class::Gap => {}
            Class::Separator => return false,
            Class::Hint => {
                if is_token_here(bytes, i) {
                    return false;
                }
                if *byte != b'-' {
                    digits = 0;
                }
            }
        }
    }
    true
}

/// True when a token's prefix ends at `i`, or a scheme of `Authorization` begins there.
fn is_token_here(bytes: &[u8], i: usize) -> bool {
    let ends = |prefix: &str| bytes[..=i].ends_with(prefix.as_bytes());
    let begins = |scheme: &[u8]| {
        let head = bytes.get(i..i + scheme.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    };
    match bytes[i] {
        b'b' | b'B' => begins(b"bearer") || begins(b"basic "),
        _ => TOKEN_PREFIXES.iter().any(|prefix| ends(prefix)),
    }
}

struct Scanner<'a> {
    text: &'a str,
    /// Everything before is in the output already.
    copied: usize,
    at: usize,
}

impl Scanner<'_> {
    fn step(&mut self, out: &mut String) {
        let bytes = self.text.as_bytes();
        match bytes[self.at] {
            b'=' | b':' => self.separator(out),
            b'@' => self.email(out),
            b if b.is_ascii_digit() => self.number(out),
            b if b.is_ascii_alphabetic() => self.word(out),
            _ => self.at += 1,
        }
    }

    fn replace(&mut self, out: &mut String, from: usize, to: usize, with: &str) {
        // An earlier rule may have copied part of it already (a masked value before `@`).
        let from = from.max(self.copied);
        out.push_str(&self.text[self.copied..from]);
        out.push_str(with);
        self.copied = to;
        self.at = to;
    }

    fn separator(&mut self, out: &mut String) {
        if self.text[self.at..].starts_with("://") {
            match pair::authority_password(self.text, self.at + 3) {
                Some((from, to)) => self.replace(out, from, to, MASKED),
                None => self.at += 3,
            }
            return;
        }
        let found = pair::name_before(self.text, self.at)
            .filter(|name| is_secret_name(name) && !self.is_error_code(name))
            .and_then(|name| {
                let value = pair::value_after(self.text, self.at + 1, name)?;
                let shown = name == "code" && is_dotted_code(&self.text[value.0..value.1]);
                (!shown).then_some(value)
            });
        match found {
            Some((from, to)) => self.replace(out, from, to, MASKED),
            None => self.at += 1,
        }
    }

    /// `status code: 404` and `error code: 23505` are no secrets, and errors are full of them.
    fn is_error_code(&self, name: &str) -> bool {
        let before = self.text[..self.at].trim_end();
        name.eq_ignore_ascii_case("code")
            && before
                .get(..before.len() - 4)
                .map(|head| head.trim_end().to_ascii_lowercase())
                .is_some_and(|head| {
                    ["status", "error", "exit"]
                        .iter()
                        .any(|w| head.ends_with(w))
                })
    }

    fn email(&mut self, out: &mut String) {
        let bytes = self.text.as_bytes();
        let is_local = |b: u8| b.is_ascii_alphanumeric() || b"._%+-".contains(&b) || b >= 0x80;
        let is_domain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b) || b >= 0x80;
        let mut from = self.at;
        while from > self.copied && is_local(bytes[from - 1]) {
            from -= 1;
        }
        let mut to = self.at + 1;
        while to < bytes.len() && is_domain(bytes[to]) {
            to += 1;
        }
        while to > self.at + 1 && matches!(bytes[to - 1], b'.' | b'-') {
            to -= 1;
        }
        if from == self.at || to == self.at + 1 {
            self.at += 1;
            return;
        }
        let masked = mask::email(&self.text[from..to]);
        self.replace(out, from, to, &masked);
    }

    fn number(&mut self, out: &mut String) {
        match number::at(self.text, self.at) {
            number::Found::Masked(from, to, with) => self.replace(out, from, to, &with),
            number::Found::Skip(to) => self.at = to,
        }
    }

    fn word(&mut self, out: &mut String) {
        let bytes = self.text.as_bytes();
        let from = self.at;
        let starts = from == 0 || !is_word(bytes[from - 1]);
        if starts {
            let rest = &self.text[from..];
            for scheme in ["bearer ", "basic "] {
                if rest
                    .get(..scheme.len())
                    .is_some_and(|head| head.eq_ignore_ascii_case(scheme))
                {
                    let value = from + scheme.len();
                    let to = token_end(bytes, value);
                    if to - value >= 6 {
                        let masked = mask::token(&self.text[value..to]);
                        self.replace(out, value, to, &masked);
                        return;
                    }
                }
            }
            for prefix in TOKEN_PREFIXES {
                let to = token_end(bytes, from);
                if rest.starts_with(prefix) && to - from >= prefix.len() + 12 {
                    let masked = mask::token(&self.text[from..to]);
                    self.replace(out, from, to, &masked);
                    return;
                }
            }
        }
        // Letters only: what follows may be a digit, a separator or `@`.
        while self.at < bytes.len() && bytes[self.at].is_ascii_alphabetic() {
            self.at += 1;
        }
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn token_end(bytes: &[u8], from: usize) -> usize {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-_.~+/=".contains(&b);
    let rest = &bytes[from..];
    from + rest
        .iter()
        .position(|b| !is_token(*b))
        .unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
