//! Long texts on standard output; a reader that has seen enough (`| head`) is no error.

use std::io::Write as _;

/// Prints a text as it is.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // The only failure is that nobody reads any more.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
