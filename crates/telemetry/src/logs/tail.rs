//! The last lines of one piece of work, kept beside the log for whoever looks at that work later.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Lines that are kept.
const LINES: usize = 100;
/// Longest line, in bytes.
const LENGTH: usize = 1_024;

/// A bounded buffer of lines; the oldest make room.
#[derive(Debug, Default)]
pub struct LogTail(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    dropped: u64,
}

impl LogTail {
    /// Takes the lines, oldest first, and how many came before them that had to make room.
    #[must_use]
    pub fn take(&self) -> (Vec<String>, u64) {
        let kept = std::mem::take(&mut *self.0.lock());
        (kept.lines.into(), kept.dropped)
    }

    pub(super) fn push(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let cut = &text[..text.floor_char_boundary(LENGTH)];
        let mut kept = self.0.lock();
        if kept.lines.len() >= LINES {
            kept.lines.pop_front();
            kept.dropped += 1;
        }
        kept.lines.push_back(cut.to_owned());
    }
}

/// Two are the same only when they are one.
impl PartialEq for LogTail {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for LogTail {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay_and_the_others_are_counted() {
        let tail = LogTail::default();
        for i in 0..=LINES {
            tail.push(format!("line {i}\n").as_bytes());
        }
        tail.push("ü".repeat(LENGTH).as_bytes());
        let (lines, dropped) = tail.take();
        assert_eq!((lines.len(), dropped), (LINES, 2));
        assert_eq!(lines[0], "line 2");
        assert!(lines[LINES - 1].len() <= LENGTH);
        assert_eq!(tail.take(), (Vec::new(), 0));
    }
}
