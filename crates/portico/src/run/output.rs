//! The programs' output, each line with the name of its copy in a colour of its own.

use std::io::Write as _;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];
/// Longer lines are cut, so that a program without line ends cannot fill the memory.
const MAX_LINE: usize = 64 * 1024;

/// Writes lines of several programs without mixing them.
pub(crate) struct Output {
    colours: bool,
}

impl Output {
    /// Colours only on a terminal, and never with `NO_COLOR`.
    pub(crate) fn new() -> Self {
        Self {
            colours: crate::table::colours(),
        }
    }

    /// Forwards a stream line by line until it ends.
    pub(crate) async fn forward(&self, label: &str, number: u16, stream: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match read_line(&mut reader, &mut line).await {
                Ok(true) => self.line(label, number, &String::from_utf8_lossy(&line)),
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Writes one line of a copy.
    pub(crate) fn line(&self, label: &str, number: u16, text: &str) {
        let mut out = std::io::stdout().lock();
        let colour = COLOURS[usize::from(number.saturating_sub(1)) % COLOURS.len()];
        // Nobody reads any more: the program behind us is what matters.
        let _ = if self.colours {
            writeln!(out, "\x1b[{colour}m{label} |\x1b[0m {text}")
        } else {
            writeln!(out, "{label} | {text}")
        };
    }
}

async fn read_line(
    reader: &mut (impl tokio::io::AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<bool> {
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let take = end.unwrap_or(chunk.len()).min(MAX_LINE - line.len());
        line.extend_from_slice(&chunk[..take]);
        let used = if Some(take) == end { take + 1 } else { take };
        reader.consume(used);
        if Some(take) == end || line.len() >= MAX_LINE {
            while line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let long = vec![b'x'; MAX_LINE + 10];
        let mut text = b"one\r\ntwo\n".to_vec();
        text.extend_from_slice(&long);
        let mut reader = BufReader::new(text.as_slice());
        let mut lengths = Vec::new();
        let mut line = Vec::new();
        while read_line(&mut reader, &mut line).await.unwrap() {
            lengths.push(line.len());
            line.clear();
        }
        assert_eq!(lengths, [3, 3, MAX_LINE, 10]);
    }
}
