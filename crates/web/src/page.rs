//! Keyset paging: `?limit=` (default 50, at most 200) and an opaque `&cursor=`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portico_base::FieldFault;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// One page of a list.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Cursor of the next page; absent on the last.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Cuts a list that was read with one item more than `limit`; `key` gives the cursor of the last kept item.
    #[must_use]
    pub fn cut<K: Serialize>(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more {
            items.last().map(|last| Cursor(key(last)).encode())
        } else {
            None
        };
        Self { items, next_cursor }
    }
}

/// `limit` and `cursor`, to be flattened into a list's own query type or taken alone.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items a page: 1 to 200, default 50.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The limit within its bounds.
    ///
    /// # Errors
    /// Names the parameter when it is outside.
    pub fn limit(&self) -> Result<usize, Problem> {
        limit(self.limit)
    }
}

/// A limit within its bounds.
///
/// # Errors
/// Names the parameter when it is outside of 1 to 200.
pub fn limit(wanted: Option<u32>) -> Result<usize, Problem> {
    match wanted.unwrap_or(50) {
        n @ 1..=200 => Ok(n as usize),
        _ => Err(fault("limit", "must be from 1 to 200")),
    }
}

/// The key after which the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor<K>(pub K);

impl<K: Serialize> Cursor<K> {
    /// The opaque text.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

impl<K: DeserializeOwned> Cursor<K> {
    /// Reads an opaque text.
    ///
    /// # Errors
    /// Names the parameter when we did not make this text.
    pub fn decode(text: &str) -> Result<Self, Problem> {
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .map(Self)
            .ok_or_else(|| fault("cursor", "is not a cursor of this list"))
    }
}

fn fault(field: &str, message: &str) -> Problem {
    Problem::invalid(
        "system.invalid",
        vec![FieldFault::new(field, "invalid", message)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_cut_and_cursors_return() {
        let page = Page::cut(vec![1, 2, 3], 2, |n| *n);
        assert_eq!(page.items, [1, 2]);
        let cursor = Cursor::<i32>::decode(&page.next_cursor.unwrap()).unwrap();
        assert_eq!(cursor, Cursor(2));
        assert!(Page::cut(vec![1, 2], 2, |n| *n).next_cursor.is_none());
        assert!(Cursor::<i32>::decode("%%").is_err());
        assert!(limit(Some(0)).is_err() && limit(Some(201)).is_err());
        assert_eq!(limit(None).unwrap(), 50);
    }
}
