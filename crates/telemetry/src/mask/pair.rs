//! Secret values behind their names in free text: where the name ends, where the value begins and ends.

/// The name before a separator at `at`: `password=`, `"password":`, `\"password\" :`, `password :`.
pub(super) fn name_before(text: &str, at: usize) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut end = at;
    while end > 0 && bytes[end - 1] == b' ' {
        end -= 1;
    }
    if end > 0 && matches!(bytes[end - 1], b'"' | b'\'') {
        end -= 1;
        while end > 0 && bytes[end - 1] == b'\\' {
            end -= 1;
        }
    }
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let mut start = end;
    while start > 0 && is_name(bytes[start - 1]) {
        start -= 1;
    }
    (start < end).then(|| &text[start..end])
}

/// The extent of the value that begins behind a separator; `None` when there is none.
pub(super) fn value_after(text: &str, from: usize, name: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut start = from;
    // `:=`, `=>` and `==` are one separator.
    while start < bytes.len() && matches!(bytes[start], b' ' | b'=' | b'>') {
        start += 1;
    }
    if start >= bytes.len() || bytes[start] == b'\n' {
        return None;
    }
    if let Some(end) = quoted_end(bytes, start) {
        return Some(end);
    }
    let end = bare_end(bytes, start, name);
    (end > start).then_some((start, end))
}

/// Inside and end of a quoted value that begins at `start`, however deep its quotes are escaped.
fn quoted_end(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    let (quote, depth) = opening(bytes, start)?;
    let inside = start + depth + 1;
    let mut i = inside;
    while i < bytes.len() {
        if bytes[i] == quote {
            let escapes = bytes[inside..i]
                .iter()
                .rev()
                .take_while(|b| **b == b'\\')
                .count();
            if escapes <= depth {
                return Some((inside, i - escapes));
            }
        }
        i += 1;
    }
    Some((inside, bytes.len()))
}

/// The quote that opens at `start` and the number of backslashes before it.
fn opening(bytes: &[u8], start: usize) -> Option<(u8, usize)> {
    let depth = bytes[start..].iter().take_while(|b| **b == b'\\').count();
    let quote = *bytes.get(start + depth)?;
    matches!(quote, b'"' | b'\'').then_some((quote, depth))
}

/// End of a value without quotes: a bracketed group with all that is in it, or a run up to a delimiter.
fn bare_end(bytes: &[u8], start: usize, name: &str) -> usize {
    let name = name.to_ascii_lowercase();
    // Headers have spaces and commas in their values, and end with the line.
    let whole_line = name.ends_with("authorization") || name.ends_with("cookie");
    let mut i = start;
    while i < bytes.len() {
        match bytes[i] {
            b'(' | b'[' | b'{' => i = group_end(bytes, i),
            b'\n' | b'\r' => break,
            b'"' | b'\'' | b')' | b']' | b'}' => break,
            b' ' | b'\t' | b',' | b';' | b'&' | b'\\' if !whole_line => break,
            _ => i += 1,
        }
    }
    i
}

/// Behind the bracket that closes the one at `start`; quotes within are skipped. Without it, the end.
fn group_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut i = start;
    while i < bytes.len() {
        match bytes[i] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            b'"' | b'\\' => {
                if let Some((_, end)) = quoted_end(bytes, i) {
                    // At the closing quote, or at the backslashes that escape it.
                    i = end;
                    while i < bytes.len() && bytes[i] == b'\\' {
                        i += 1;
                    }
                }
            }
            _ => {}
        }
        i += 1;
    }
    bytes.len()
}

/// The password in `user:password@host` behind `://`.
pub(super) fn authority_password(text: &str, from: usize) -> Option<(usize, usize)> {
    let rest = &text[from..];
    let end = rest
        .find(['/', '?', '#', ' ', '"', '\'', '<', '>', '\n'])
        .unwrap_or(rest.len());
    let authority = &rest[..end];
    let (user, _) = authority.rsplit_once('@')?;
    let (name, _) = user.split_once(':')?;
    Some((from + name.len() + 1, from + user.len()))
}
