//! From text to an expression, by recursive descent without backtracking over more than one operand.

use super::DEEPEST;

/// A comparison's operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    In,
    NotIn,
    IsEmpty,
    IsNotEmpty,
    Matches,
    NotMatches,
}

impl Op {
    /// The name in Consul's errors.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Equal => "Equal",
            Self::NotEqual => "Not Equal",
            Self::In => "In",
            Self::NotIn => "Not In",
            Self::IsEmpty => "Is Empty",
            Self::IsNotEmpty => "Is Not Empty",
            Self::Matches => "Matches",
            Self::NotMatches => "Not Matches",
        }
    }

    /// True for those that say the contrary of another: a missing key fulfils them.
    pub(super) const fn is_negative(self) -> bool {
        matches!(
            self,
            Self::NotEqual | Self::NotIn | Self::IsEmpty | Self::NotMatches
        )
    }
}

/// An expression as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Or(Vec<Self>),
    And(Vec<Self>),
    Not(Box<Self>),
    Match {
        selector: Vec<String>,
        op: Op,
        value: Option<String>,
    },
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let mut p = Parser {
        text,
        at: 0,
        furthest: 0,
        expected: Vec::new(),
        depth: 0,
    };
    p.space();
    let read = p.or();
    match read {
        Ok(expression) => {
            p.space();
            if p.at == text.len() {
                return Ok(expression);
            }
            p.expect(&["\"and\"", "\"or\"", "[ \\t\\r\\n]", "EOF"]);
            Err(p.no_match())
        }
        Err(Stop::NoMatch) => Err(p.no_match()),
        Err(Stop::TooDeep) => Err(format!("the expression is nested deeper than {DEEPEST}")),
    }
}

enum Stop {
    NoMatch,
    TooDeep,
}

type Read<T> = Result<T, Stop>;

/// Something that is a selector, a value, or both.
enum Operand {
    Selector(Vec<String>),
    Value(String),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// The furthest place where something else was expected, and what.
    furthest: usize,
    expected: Vec<&'static str>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expect(&mut self, what: &[&'static str]) {
        if self.at > self.furthest || self.expected.is_empty() {
            self.furthest = self.at;
            self.expected.clear();
        }
        if self.at == self.furthest {
            for one in what {
                if !self.expected.contains(one) {
                    self.expected.push(one);
                }
            }
        }
    }

    fn fail<T>(&mut self, what: &[&'static str]) -> Read<T> {
        self.expect(what);
        Err(Stop::NoMatch)
    }

    /// `1:13 (12): no match found, expected: …`: line, column and offset as the real parser counts them.
    fn no_match(&mut self) -> String {
        let before = &self.text[..self.furthest];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        self.expected.sort_unstable();
        let list = match self.expected.as_slice() {
            [] => String::new(),
            [one] => (*one).to_owned(),
            [first @ .., last] => format!("{} or {last}", first.join(", ")),
        };
        format!(
            "{line}:{column} ({}): no match found, expected: {list}",
            self.furthest
        )
    }

    /// Skips white space; true when there was some.
    fn space(&mut self) -> bool {
        let before = self.at;
        self.at += self
            .rest()
            .bytes()
            .take_while(|b| b" \t\r\n".contains(b))
            .count();
        self.at > before
    }

    /// Takes a word that white space surrounds.
    fn word(&mut self, word: &str) -> bool {
        let Some(tail) = self.rest().strip_prefix(word) else {
            return false;
        };
        let ends = tail.is_empty() || tail.starts_with([' ', '\t', '\r', '\n', '(', ')', '"', '`']);
        if ends {
            self.at += word.len();
        }
        ends
    }

    fn or(&mut self) -> Read<Expression> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Stop::TooDeep);
        }
        let mut parts = vec![self.and()?];
        while self.joined("or") {
            parts.push(self.and()?);
        }
        self.depth -= 1;
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Expression::Or(parts),
        })
    }

    fn and(&mut self) -> Read<Expression> {
        let mut parts = vec![self.unary()?];
        while self.joined("and") {
            parts.push(self.unary()?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Expression::And(parts),
        })
    }

    /// A connecting word with white space around it.
    fn joined(&mut self, word: &str) -> bool {
        let before = self.at;
        if self.space() && self.word(word) && self.space() {
            return true;
        }
        self.at = before;
        false
    }

    fn unary(&mut self) -> Read<Expression> {
        let before = self.at;
        if self.word("not") && self.space() {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(Stop::TooDeep);
            }
            let inner = self.unary()?;
            self.depth -= 1;
            return Ok(Expression::Not(Box::new(inner)));
        }
        self.at = before;
        if self.rest().starts_with('(') {
            self.at += 1;
            self.space();
            let inner = self.or()?;
            self.space();
            if !self.rest().starts_with(')') {
                return self.fail(&["\")\"", "[ \\t\\r\\n]"]);
            }
            self.at += 1;
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Read<Expression> {
        let left = self.operand()?;
        let before = self.at;
        let spaced = self.space();
        for (sign, op) in [("==", Op::Equal), ("!=", Op::NotEqual)] {
            if self.rest().starts_with(sign) {
                let Operand::Selector(selector) = left else {
                    self.at = before;
                    return self.fail(&["\"in\"", "\"not\""]);
                };
                self.at += sign.len();
                self.space();
                return self.with_value(selector, op);
            }
        }
        self.expect(&["\"!=\"", "\"==\"", "[ \\t\\r\\n]"]);
        if !spaced {
            return Err(Stop::NoMatch);
        }
        if self.word("is") {
            return self.emptiness(left);
        }
        let negated = self.word("not");
        if negated && !self.space() {
            return self.fail(&["[ \\t\\r\\n]"]);
        }
        self.named(left, negated)
    }

    fn emptiness(&mut self, left: Operand) -> Read<Expression> {
        let Operand::Selector(selector) = left else {
            return self.fail(&["\"in\"", "\"not\""]);
        };
        if !self.space() {
            return self.fail(&["[ \\t\\r\\n]"]);
        }
        let negated = self.word("not");
        if negated && !self.space() {
            return self.fail(&["[ \\t\\r\\n]"]);
        }
        if !self.word("empty") {
            return self.fail(if negated {
                &["\"empty\""]
            } else {
                &["\"empty\"", "\"not\""]
            });
        }
        let op = if negated { Op::IsNotEmpty } else { Op::IsEmpty };
        Ok(Expression::Match {
            selector,
            op,
            value: None,
        })
    }

    fn named(&mut self, left: Operand, negated: bool) -> Read<Expression> {
        let op = |plain, other| if negated { other } else { plain };
        if self.word("in") {
            if !self.space() {
                return self.fail(&["[ \\t\\r\\n]"]);
            }
            let value = match left {
                Operand::Value(value) => value,
                Operand::Selector(path) => path.join("."),
            };
            let Operand::Selector(selector) = self.operand()? else {
                return self.fail(&["selector"]);
            };
            return Ok(Expression::Match {
                selector,
                op: op(Op::In, Op::NotIn),
                value: Some(value),
            });
        }
        let Operand::Selector(selector) = left else {
            return self.fail(if negated {
                &["\"in\""]
            } else {
                &["\"in\"", "\"not\""]
            });
        };
        let found = if self.word("contains") {
            op(Op::In, Op::NotIn)
        } else if self.word("matches") {
            op(Op::Matches, Op::NotMatches)
        } else {
            let mut words = vec!["\"contains\"", "\"in\"", "\"matches\""];
            if !negated {
                words.extend(["\"is\"", "\"not\""]);
            }
            return self.fail(&words);
        };
        self.space();
        self.with_value(selector, found)
    }

    fn with_value(&mut self, selector: Vec<String>, op: Op) -> Read<Expression> {
        let value = match self.operand()? {
            Operand::Value(value) => value,
            Operand::Selector(path) => path.join("."),
        };
        Ok(Expression::Match {
            selector,
            op,
            value: Some(value),
        })
    }

    fn operand(&mut self) -> Read<Operand> {
        match self.rest().bytes().next() {
            Some(b'"' | b'`') => Ok(Operand::Value(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b) if b.is_ascii_alphabetic() => self.selector(),
            _ => self.fail(&[
                "\"(\"", "\"-\"", "\"0\"", "\"\\\"\"", "\"`\"", "\"not\"", "[1-9]", "[a-zA-Z]",
            ]),
        }
    }

    fn identifier(&mut self) -> String {
        let length = self
            .rest()
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'/'))
            .count();
        let word = self.rest()[..length].to_owned();
        self.at += length;
        word
    }

    fn selector(&mut self) -> Read<Operand> {
        let mut path = vec![self.identifier()];
        loop {
            let rest = self.rest();
            if let Some(tail) = rest.strip_prefix('.') {
                if !tail.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    self.at += 1;
                    return self.fail(&["[a-zA-Z]"]);
                }
                self.at += 1;
                path.push(self.identifier());
            } else if rest.starts_with('[') {
                self.at += 1;
                self.space();
                if !self.rest().starts_with(['"', '`']) {
                    return self.fail(&["\"\\\"\"", "\"`\"", "[ \\t\\r\\n]"]);
                }
                path.push(self.string()?);
                self.space();
                if !self.rest().starts_with(']') {
                    return self.fail(&["\"]\"", "[ \\t\\r\\n]"]);
                }
                self.at += 1;
            } else {
                return Ok(Operand::Selector(path));
            }
        }
    }

    fn number(&mut self) -> Read<Operand> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let whole = rest[sign..].bytes().take_while(u8::is_ascii_digit).count();
        if whole == 0 {
            self.at += sign;
            return self.fail(&["\"0\"", "[1-9]"]);
        }
        let mut end = sign + whole;
        let fraction = rest[end..]
            .strip_prefix('.')
            .map_or(0, |f| f.bytes().take_while(u8::is_ascii_digit).count());
        if fraction > 0 {
            end += 1 + fraction;
        }
        let tail = &rest[end..];
        if !(tail.is_empty() || tail.starts_with([' ', '\t', '\r', '\n', ')'])) {
            self.at += end;
            return self.fail(&["\")\"", "[ \\t\\r\\n]", "[0-9]", "EOF"]);
        }
        self.at += end;
        Ok(Operand::Value(rest[..end].to_owned()))
    }

    /// `"…"` with escapes, or a raw text between backticks.
    fn string(&mut self) -> Read<String> {
        let rest = self.rest();
        if let Some(raw) = rest.strip_prefix('`') {
            let Some(end) = raw.find('`') else {
                self.at = self.text.len();
                return self.fail(&["\"`\""]);
            };
            self.at += end + 2;
            return Ok(raw[..end].to_owned());
        }
        let mut escaped = false;
        let closing = rest.char_indices().skip(1).find(|(_, c)| {
            let closes = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            closes
        });
        let Some((end, _)) = closing else {
            self.at = self.text.len();
            return self.fail(&["\"\\\"\""]);
        };
        let Some(text) = unescape(&rest[1..end]) else {
            return self.fail(&["escape sequence"]);
        };
        self.at += end + 1;
        Ok(text)
    }
}

/// Go's escapes in an interpreted string.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = |chars: &mut std::str::Chars<'_>, n: usize| {
            let hex: String = chars.by_ref().take(n).collect();
            (hex.len() == n)
                .then(|| u32::from_str_radix(&hex, 16).ok())
                .flatten()
        };
        let made = match chars.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            c @ ('\\' | '"') => c,
            'x' => char::from_u32(code(&mut chars, 2)?)?,
            'u' => char::from_u32(code(&mut chars, 4)?)?,
            'U' => char::from_u32(code(&mut chars, 8)?)?,
            _ => return None,
        };
        out.push(made);
    }
    Some(out)
}
