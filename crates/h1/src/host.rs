//! The grammar of `Host` as far as it is served: a name or address with an optional port.

use std::net::Ipv6Addr;

/// True for `name`, `name:port`, `1.2.3.4:port`, `[::1]:port`; no user info, path or other bytes.
#[must_use]
pub fn is_valid_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, rest)) = rest.split_once(']') else {
                return false;
            };
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => (None, port),
                None => return rest.is_empty(),
            }
        }
        None => host
            .split_once(':')
            .map_or((Some(host), ""), |(name, port)| (Some(name), port)),
    };
    let port_ok = port.is_empty()
        || (port.len() <= 5
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok());
    port_ok && name.is_none_or(is_valid_name)
}

fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::is_valid_host;

    #[test]
    fn names_and_addresses_with_ports() {
        for good in [
            "a",
            "example.com",
            "example.com:80",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:443",
            "a_b-c",
            "host:",
        ] {
            assert!(is_valid_host(good), "{good}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            ":80",
            "a b",
            "user@host",
            "host/path",
            "host:80a",
            "host:99999",
            "[::1",
            "[zz]",
            "[::1]x",
            "a,b",
            "a?b",
            "ho\u{e9}st",
            "host:80:80",
            "a#b",
            "a\\b",
        ] {
            assert!(!is_valid_host(bad), "{bad}");
        }
    }
}
