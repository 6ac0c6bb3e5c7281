//! Names of objects.

use std::fmt;

use crate::error::ObjectError;

/// Longest name in bytes; S3 allows 1,024, of which a prefix may take its part.
const MAX_LEN: usize = 512;
/// Longest part between two slashes; files allow 255.
const MAX_PART: usize = 200;

/// A name like `exports/0193…/data.zip`: parts of letters, digits, `.`, `_` and `-`, separated by
/// slashes, none of them beginning with a dot. So a name is the same in a path, in a URL and in a
/// bucket, and can never lead out of the store. No object's name may be another one's folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// A name from its text.
    ///
    /// # Errors
    /// [`ObjectError::Invalid`] when the text breaks the rules of a name.
    pub fn new(text: impl Into<String>) -> Result<Self, ObjectError> {
        let text = text.into();
        match fault(&text) {
            None => Ok(Self(text)),
            Some(fault) => Err(ObjectError::Invalid(format!("name of an object: {fault}"))),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies in `folder`, however deep.
    #[must_use]
    pub fn is_in(&self, folder: &Self) -> bool {
        self.0
            .strip_prefix(folder.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is empty");
    }
    if text.len() > MAX_LEN {
        return Some("is longer than 512 bytes");
    }
    text.split('/').find_map(|part| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if part.is_empty() {
            Some("has an empty part")
        } else if part.len() > MAX_PART {
            Some("has a part longer than 200 bytes")
        } else if part.starts_with('.') {
            Some("has a part that begins with a dot")
        } else if !part.bytes().all(allowed) {
            Some("has other characters than letters, digits, `.`, `_` and `-`")
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_relative_path_of_plain_parts() {
        for good in ["a", "exports/0193/data.zip", "a-b_c.D/9", &"x".repeat(200)] {
            assert_eq!(Key::new(good).expect(good).as_str(), good);
        }
        let long = ["x"; 257].join("/");
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            ".hidden",
            "a/.b",
            "a b",
            "a\\b",
            "ä",
            "a\0b",
            "a%2fb",
            "a:b",
            "~",
            &"x".repeat(201),
            &long,
        ] {
            let error = Key::new(bad).expect_err(bad);
            assert!(matches!(error, ObjectError::Invalid(_)), "{bad}");
        }
    }

    #[test]
    fn a_folder_is_left_at_its_slash() {
        let key = |text: &str| Key::new(text).unwrap();
        assert!(key("a/b/c").is_in(&key("a")));
        assert!(key("a/b/c").is_in(&key("a/b")));
        assert!(!key("ab/c").is_in(&key("a")));
        assert!(!key("a").is_in(&key("a")));
    }
}
