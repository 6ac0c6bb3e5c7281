//! `portico version`.

use crate::text::say;
use serde_json::json;

/// The version of this binary.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, short, or `unknown` outside of a checkout.
pub(crate) const COMMIT: &str = env!("PORTICO_COMMIT");
/// The compiler.
pub(crate) const RUSTC: &str = env!("PORTICO_RUSTC");

/// Prints version, commit and compiler.
pub(crate) fn print(as_json: bool) {
    if as_json {
        say!(
            "{}",
            json!({ "version": VERSION, "commit": COMMIT, "rustc": RUSTC })
        );
    } else {
        say!("portico {VERSION} ({COMMIT}, {RUSTC})");
    }
}
