//! Masking of personal data and secrets before they reach a log, an error or an audit record (OB-31).

/// What stands in place of a secret.
pub const MASKED: &str = "«masked»";

const SECRET_NAMES: &[&str] = &[
    "password",
    "secret",
    "token",
    "code",
    "otp",
    "authorization",
    "cookie",
    "signature",
    "ticket",
    "private_key",
];

/// True for field names whose values are secrets: one of the listed words is a whole part of the
/// name when it is split at `_`, `-` and `.` (`api_token`, `x-auth-code`), so that `status_code` is one too.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if lower == "status_code" || lower == "error_code" {
        return false;
    }
    lower.contains("private_key")
        || lower
            .split(['_', '-', '.'])
            .any(|part| SECRET_NAMES.contains(&part) || part == "passwd" || part == "apikey")
        || lower.ends_with("api_key")
        || lower.ends_with("api-key")
        || lower == "key"
}

/// `13812345678` → `138****5678`; shorter numbers keep only their last two digits.
#[must_use]
pub fn phone(number: &str) -> String {
    let digits: Vec<char> = number.chars().collect();
    if digits.len() < 8 {
        let tail: String = digits.iter().rev().take(2).rev().collect();
        return format!("****{tail}");
    }
    let head: String = digits[..digits.len() - 8].iter().collect();
    let tail: String = digits[digits.len() - 4..].iter().collect();
    format!("{head}****{tail}")
}

/// `user@example.com` → `u***@example.com`.
#[must_use]
pub fn email(address: &str) -> String {
    match address.split_once('@') {
        Some((local, domain)) => {
            let first: String = local.chars().take(1).collect();
            format!("{first}***@{domain}")
        }
        None => "***".to_owned(),
    }
}

/// First and last 8 characters of a token of at least 40, else `***`.
#[must_use]
pub fn token(value: &str) -> String {
    if value.len() >= 40 && value.is_ascii() {
        format!("{}***{}", &value[..8], &value[value.len() - 8..])
    } else {
        "***".to_owned()
    }
}

/// Masks the values of secret parameters of a query string, and the password of a URL's authority.
#[must_use]
pub fn url(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let (head, query) = match value.split_once('?') {
        Some((head, query)) => (head, Some(query)),
        None => (value, None),
    };
    out.push_str(&authority(head));
    if let Some(query) = query {
        out.push('?');
        for (i, pair) in query.split('&').enumerate() {
            if i > 0 {
                out.push('&');
            }
            match pair.split_once('=') {
                Some((name, _)) if is_secret_name(name) => {
                    out.push_str(name);
                    out.push('=');
                    out.push_str(MASKED);
                }
                _ => out.push_str(pair),
            }
        }
    }
    out
}

fn authority(head: &str) -> String {
    let Some((scheme, rest)) = head.split_once("://") else {
        return head.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{scheme}://{name}:{MASKED}@{host}{path}"),
            None => head.to_owned(),
        },
        None => head.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        assert_eq!(phone("13812345678"), "138****5678");
        assert_eq!(phone("12345"), "****45");
        assert_eq!(email("user@example.com"), "u***@example.com");
        assert_eq!(email("nonsense"), "***");
        assert_eq!(token("short"), "***");
        assert_eq!(token(&"ab".repeat(20)), "abababab***abababab");
        assert_eq!(
            url("postgres://me:pw@host/db?sslmode=require&token=x"),
            "postgres://me:«masked»@host/db?sslmode=require&token=«masked»"
        );
        assert_eq!(url("/v1/kv/a?token=abc&raw"), "/v1/kv/a?token=«masked»&raw");
    }

    #[test]
    fn secret_names() {
        for name in [
            "password",
            "api_token",
            "X-Auth-Code",
            "key",
            "x-api-key",
            "db.password",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["status_code", "keyspace", "monkey", "tokenize", "encoded"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
