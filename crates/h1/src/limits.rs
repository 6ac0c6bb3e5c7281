//! Sizes above which a head is refused.

/// Limits of one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line or status line.
    pub line: usize,
    /// Bytes of all header lines together.
    pub head: usize,
    /// Header lines.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: 8 * 1024,
            head: 32 * 1024,
            fields: 100,
        }
    }
}
