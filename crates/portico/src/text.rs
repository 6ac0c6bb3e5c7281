//! Long texts on standard output; a reader that has seen enough (`| head`) is no error.

use std::io::Write as _;

/// Prints a line like `println!`, and goes on when nobody reads it any more.
macro_rules! say {
    () => {
        $crate::text::print("\n")
    };
    ($($argument:tt)*) => {
        $crate::text::print(&(format!($($argument)*) + "\n"))
    };
}

pub(crate) use say;

/// Prints a text as it is.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // The only failure is that nobody reads any more.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
