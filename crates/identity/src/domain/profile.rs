//! What people say about themselves: name, language, time zone.

use portico_base::FieldFault;

/// What is wrong with a name for people.
pub(crate) fn display_name_fault(name: &str) -> Option<FieldFault> {
    (name.chars().count() > 64 || name.chars().any(unprintable)).then(|| {
        let message = "must be at most 64 characters without control characters";
        FieldFault::new("display_name", "form", message)
    })
}

/// What is wrong with a language.
pub(crate) fn locale_fault(locale: &str) -> Option<FieldFault> {
    (!["zh-CN", "en"].contains(&locale))
        .then(|| FieldFault::new("locale", "choice", "must be zh-CN or en"))
}

/// What is wrong with the name of a time zone. Only its form is checked: the list of names changes with
/// each release of the IANA data, and clients know more of them than we do.
pub(crate) fn time_zone_fault(zone: &str) -> Option<FieldFault> {
    let part = |p: &str| {
        p.starts_with(|c: char| c.is_ascii_alphabetic())
            && p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
    };
    let good = zone.len() <= 64 && zone.split('/').count() <= 3 && zone.split('/').all(part);
    (!good).then(|| {
        let message = "must be the name of a time zone like Asia/Shanghai";
        FieldFault::new("time_zone", "form", message)
    })
}

/// Control characters, and those that turn the direction of text around them.
fn unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults() {
        assert!(display_name_fault("李雷 Li Lei").is_none());
        assert!(display_name_fault(&"x".repeat(65)).is_some());
        assert!(display_name_fault("a\u{202e}b").is_some());
        assert!(display_name_fault("a\nb").is_some());
        assert!(locale_fault("en").is_none() && locale_fault("fr").is_some());
        for good in [
            "UTC",
            "Asia/Shanghai",
            "America/Argentina/Ushuaia",
            "Etc/GMT+8",
        ] {
            assert!(time_zone_fault(good).is_none(), "{good}");
        }
        for bad in ["", "Asia/", "../etc", "Asia/Shang hai", "a/b/c/d"] {
            assert!(time_zone_fault(bad).is_some(), "{bad}");
        }
    }
}
