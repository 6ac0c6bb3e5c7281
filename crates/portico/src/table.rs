//! Tables for people: aligned columns, states in colour on a terminal, strangers' text made harmless.

use std::io::IsTerminal as _;

use portico_base::id;
use serde_json::Value;

/// Whether standard output shows colours: only on a terminal, and never with `NO_COLOR`.
pub(crate) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Rows under a header.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|word| (*word).to_owned()).collect()],
        }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cells = cells.into_iter().map(|cell| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                plain(&cell)
            }
        });
        self.rows.push(cells.collect());
    }

    /// True without a row below the header.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        crate::text::print(&self.text(colours()));
    }

    /// The table as text.
    pub(crate) fn text(&self, colours: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                match colour(cell).filter(|_| colours) {
                    Some(code) => line.push_str(&format!("\x1b[{code}m{cell}\x1b[0m{padding}")),
                    None => line.push_str(&format!("{cell}{padding}")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A JSON value as a cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Who made a change: the house's own principals by their names.
pub(crate) fn author(value: &Value) -> String {
    let text = cell(value);
    match text.parse::<uuid::Uuid>() {
        Ok(id::PRINCIPAL_OPERATOR) => "operator".to_owned(),
        Ok(id::PRINCIPAL_SYSTEM) => "system".to_owned(),
        _ => text,
    }
}

/// Text without control characters: what a stranger's program says must not command the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '·' } else { c })
        .collect()
}

/// Every fact of an answer on a line of its own, nested ones by their path.
pub(crate) fn facts(found: &Value) -> Vec<String> {
    let mut facts = Vec::new();
    walk("", found, &mut facts);
    let width = facts.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0);
    facts
        .into_iter()
        .map(|(name, value)| plain(&format!("{name:width$}  {value}")))
        .collect()
}

fn walk(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(name, value)| walk(&below(name), value, out)),
        Value::Array(list) if list.iter().any(|v| v.is_object() || v.is_array()) => {
            for (at, value) in list.iter().enumerate() {
                walk(&format!("{path}[{at}]"), value, out);
            }
        }
        Value::Array(list) if list.is_empty() => {}
        Value::Array(list) => {
            let words: Vec<String> = list.iter().map(cell).collect();
            out.push((path.to_owned(), words.join(", ")));
        }
        Value::Null => {}
        other => out.push((path.to_owned(), cell(other))),
    }
}

/// States whose colour says how well things are.
fn colour(word: &str) -> Option<u8> {
    match word {
        "ready" | "up" | "ok" | "closed" => Some(32),
        "starting" | "late" | "draining" | "maintenance" | "degraded" | "half_open"
        | "disabled" => Some(33),
        "failing" | "inactive" | "down" | "failed" | "open" | "unready" | "no process" => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["SERVICE", "STATE", "WHY"]);
        table.row(["hello", "ready", ""].map(str::to_owned));
        table.row(["a", "failing", "evil \x1b[2J"].map(str::to_owned));
        table
    }

    #[test]
    fn columns_are_aligned_and_control_characters_are_gone() {
        assert_eq!(
            table().text(false),
            "SERVICE  STATE    WHY\nhello    ready    -\na        failing  evil ·[2J\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let text = table().text(true);
        let bare = text.replace("\x1b[32m", "").replace("\x1b[31m", "");
        assert_eq!(bare.replace("\x1b[0m", ""), table().text(false));
        assert!(text.contains("\x1b[32mready\x1b[0m"));
    }

    #[test]
    fn facts_are_lines() {
        let found = serde_json::json!({
            "key": "GET /x", "stored": { "age_s": 3, "tags": ["a", "b"], "vary": [] }, "list": [{ "id": 1 }], "reason": null,
        });
        let mut lines = facts(&found);
        lines.sort();
        assert_eq!(
            lines,
            [
                "key           GET /x",
                "list[0].id    1",
                "stored.age_s  3",
                "stored.tags   a, b"
            ]
        );
    }
}
