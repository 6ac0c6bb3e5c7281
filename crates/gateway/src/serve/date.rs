//! The `Date` field's text, made once a second.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

/// The length of an IMF-fixdate.
const LEN: usize = 29;

pub(crate) struct DateCache {
    text: Cell<[u8; LEN]>,
    second: Cell<u64>,
}

impl DateCache {
    pub(crate) fn new() -> Self {
        let cache = Self {
            text: Cell::new([b' '; LEN]),
            second: Cell::new(u64::MAX),
        };
        cache.refresh();
        cache
    }

    /// The text as of the last refresh.
    pub(crate) fn text(&self) -> [u8; LEN] {
        self.text.get()
    }

    /// Looks at the clock; called by the worker's ticker.
    pub(crate) fn refresh(&self) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs();
        if self.second.replace(now) == now {
            return;
        }
        let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
        if let Ok(text) = text.as_bytes().try_into() {
            self.text.set(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_a_valid_date_close_to_now() {
        let text = DateCache::new().text();
        let parsed = httpdate::parse_http_date(std::str::from_utf8(&text).unwrap()).unwrap();
        assert!(SystemTime::now().duration_since(parsed).unwrap() < Duration::from_secs(5));
    }
}
