//! The embedded list of common passwords: Django's list (BSD licence, `common.LICENSE`), cut to 8 characters and more.

use std::io::Read as _;
use std::sync::LazyLock;

static PACKED: &[u8] = include_bytes!("common.txt.gz");

/// One password a line, in lower case, with a line end in front.
static LIST: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::from("\n");
    flate2::read::GzDecoder::new(PACKED)
        .read_to_string(&mut text)
        .expect("the embedded list was packed from text, which a test reads");
    text
});

/// What Chinese users choose and the list lacks.
const CHINESE: [&str; 16] = [
    "5201314520",
    "a123456789",
    "aa123456789",
    "abc123456",
    "asd123456",
    "iloveyou1314",
    "qq123456789",
    "qwe123456",
    "w123456789",
    "wang123456",
    "woaini1314",
    "woaini520",
    "woaini521",
    "woaini5201314",
    "woaiwojia",
    "zhang123456",
];

/// True for a password that attackers try first.
pub(super) fn contains(password: &str) -> bool {
    let lower = password.to_lowercase();
    if lower.contains('\n') {
        return false;
    }
    CHINESE.contains(&lower.as_str()) || LIST.contains(&format!("\n{lower}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole() {
        assert!(LIST.lines().count() > 8_000);
        assert!(LIST.lines().skip(1).all(|l| l.chars().count() >= 8));
        for common in ["password1", "PASSWORD1", "1qaz2wsx", "WoAiNi1314"] {
            assert!(contains(common), "{common}");
        }
        for rare in [
            "",
            "\n",
            "password1\npassword2",
            "correct horse battery",
            "assword1",
        ] {
            assert!(!contains(rare), "{rare:?}");
        }
    }
}
