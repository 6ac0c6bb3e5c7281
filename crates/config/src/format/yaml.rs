//! YAML 1.2 with the core schema; one document, no aliases, no tags but `!!str`.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::{MAX_DEPTH, SyntaxError};
use crate::raw::{Entry, Raw};

pub(super) fn parse(text: &str) -> (Raw, Vec<SyntaxError>) {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
    };
    match builder.document() {
        Ok(raw) => (raw, Vec::new()),
        Err(error) => (Raw::Null, vec![error]),
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Raw, SyntaxError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(at(span.start, "a configuration file holds one document"));
                }
                Event::DocumentStart(_) => {
                    let first = self.next()?;
                    root = Some(self.value(first, 0)?);
                }
                Event::StreamEnd => return Ok(root.unwrap_or(Raw::Null)),
                _ => return Err(at(span.start, "unexpected content")),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(scan(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn value(&mut self, first: (Event<'a>, Span), depth: usize) -> Result<Raw, SyntaxError> {
        let (event, span) = first;
        if depth > MAX_DEPTH {
            return Err(at(span.start, "nested too deep"));
        }
        match event {
            Event::Scalar(text, style, _, tag) => scalar(&text, style, tag.as_deref(), span),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => return Ok(Raw::List(items)),
                        item => items.push(self.value(item, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => self.mapping(depth),
            Event::Alias(_) => Err(at(span.start, "aliases (`*name`) are not read")),
            _ => Err(at(span.start, "unexpected end")),
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Raw, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Raw::Table(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(at(span.start, "a key is plain text")),
            };
            let first = self.next()?;
            let raw = self.value(first, depth + 1)?;
            entries.push(Entry {
                key,
                line: span.start.line(),
                raw,
            });
        }
    }
}

fn scalar(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: Span,
) -> Result<Raw, SyntaxError> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => {
            return Ok(Raw::String(text.to_owned()));
        }
        Some(_) => return Err(at(span.start, "tags (`!name`) are not read")),
        None => {}
    }
    if style != ScalarStyle::Plain {
        return Ok(Raw::String(text.to_owned()));
    }
    Ok(plain(text))
}

/// YAML 1.2 core schema, §10.3.2; `yes`, `no`, `on` and `off` are text there.
fn plain(text: &str) -> Raw {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Raw::Null,
        "true" | "True" | "TRUE" => return Raw::Bool(true),
        "false" | "False" | "FALSE" => return Raw::Bool(false),
        _ => {}
    }
    let radix = |prefix, radix| {
        text.strip_prefix(prefix)
            .and_then(|digits| i64::from_str_radix(digits, radix).ok())
    };
    if let Some(whole) = text
        .parse()
        .ok()
        .or_else(|| radix("0x", 16))
        .or_else(|| radix("0o", 8))
    {
        return Raw::Integer(whole);
    }
    let numeric = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match text.parse() {
        Ok(number) if numeric => Raw::Float(number),
        _ => Raw::String(text.to_owned()),
    }
}

fn at(mark: Marker, problem: &str) -> SyntaxError {
    SyntaxError::new(mark.line(), problem)
}

fn scan(error: &ScanError) -> SyntaxError {
    SyntaxError::new(error.marker().line(), error.info())
}
