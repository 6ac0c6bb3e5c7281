//! A strict reader of Structured Field dictionaries (RFC 9651 §4.2.2), as far as `CDN-Cache-Control` needs it.

/// Members beyond this many make the field unreadable: nobody writes that many cache directives.
const MEMBERS_MAX: usize = 64;

/// The dictionary's members in order; a repeated key keeps its last value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dictionary {
    members: Vec<(String, Value)>,
}

/// A member's value; what a cache directive never is, is only checked for its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Integer(i64),
    Boolean(bool),
    Other,
}

impl Dictionary {
    /// Reads all lines as one field; `None` when any byte is out of place.
    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut whole: Vec<u8> = Vec::new();
        for line in lines {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if !whole.is_empty() {
                whole.extend_from_slice(b", ");
            }
            whole.extend_from_slice(line);
        }
        let mut reader = Reader { rest: &whole };
        let mut found = Self::default();
        reader.skip(b" ");
        while !reader.rest.is_empty() {
            let key = reader.key()?;
            let value = if reader.eat(b'=') {
                reader.item_or_list()?
            } else {
                Value::Boolean(true)
            };
            reader.parameters()?;
            found.members.retain(|(had, _)| *had != key);
            found.members.push((key, value));
            reader.skip(b" \t");
            if reader.rest.is_empty() {
                break;
            }
            if !reader.eat(b',') || found.members.len() > MEMBERS_MAX {
                return None;
            }
            reader.skip(b" \t");
            if reader.rest.is_empty() {
                return None;
            }
        }
        Some(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&str, Value)> {
        self.members
            .iter()
            .map(|(key, value)| (key.as_str(), *value))
    }
}

impl Value {
    pub(super) fn as_bool(self) -> Option<bool> {
        if let Self::Boolean(flag) = self {
            Some(flag)
        } else {
            None
        }
    }

    pub(super) fn as_integer(self) -> Option<i64> {
        if let Self::Integer(number) = self {
            Some(number)
        } else {
            None
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        if hit {
            self.rest = &self.rest[1..];
        }
        hit
    }

    fn skip(&mut self, set: &[u8]) {
        while self.peek().is_some_and(|b| set.contains(&b)) {
            self.rest = &self.rest[1..];
        }
    }

    /// Takes the longest run of bytes that fit.
    fn run(&mut self, fits: impl Fn(u8) -> bool) -> &[u8] {
        let end = self
            .rest
            .iter()
            .position(|b| !fits(*b))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn key(&mut self) -> Option<String> {
        if !self
            .peek()
            .is_some_and(|b| b.is_ascii_lowercase() || b == b'*')
        {
            return None;
        }
        let taken =
            self.run(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
        String::from_utf8(taken.to_vec()).ok()
    }

    fn item_or_list(&mut self) -> Option<Value> {
        if !self.eat(b'(') {
            return self.bare_item();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Value::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn bare_item(&mut self) -> Option<Value> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                self.eat(b'?');
                let flag = if self.eat(b'1') {
                    true
                } else if self.eat(b'0') {
                    false
                } else {
                    return None;
                };
                Some(Value::Boolean(flag))
            }
            b':' => {
                self.eat(b':');
                self.run(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
                self.eat(b':').then_some(Value::Other)
            }
            b'@' => {
                self.eat(b'@');
                self.number()
                    .filter(|v| v.as_integer().is_some())
                    .map(|_| Value::Other)
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'*' => {
                self.run(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.eat(b'-');
        let whole = self.run(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 15 {
            return None;
        }
        let size = whole.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0'));
        if self.eat(b'.') {
            let fraction = self.run(|b| b.is_ascii_digit()).len();
            return (1..=3).contains(&fraction).then_some(Value::Other);
        }
        Some(Value::Integer(if negative { -size } else { size }))
    }

    fn string(&mut self) -> Option<Value> {
        self.eat(b'"');
        loop {
            match self.peek()? {
                b'"' => {
                    self.eat(b'"');
                    return Some(Value::Other);
                }
                b'\\' => {
                    self.eat(b'\\');
                    if !self.eat(b'"') && !self.eat(b'\\') {
                        return None;
                    }
                }
                b' '..=b'~' => self.rest = &self.rest[1..],
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<Vec<(String, Value)>> {
        Dictionary::parse(std::iter::once(text.as_bytes())).map(|d| d.members)
    }

    #[test]
    fn forms_of_rfc_9651() {
        let one = |key: &str, value| Some(vec![(key.to_owned(), value)]);
        assert_eq!(read("a"), one("a", Value::Boolean(true)));
        assert_eq!(read("a=?0"), one("a", Value::Boolean(false)));
        assert_eq!(read("a=-5;x;y=\"z\""), one("a", Value::Integer(-5)));
        assert_eq!(read("a=1.25"), one("a", Value::Other));
        assert_eq!(read("a=(1 \"x\";p 2.0)"), one("a", Value::Other));
        assert_eq!(read("a=:aGk=:"), one("a", Value::Other));
        assert_eq!(read("a=@1659578233"), one("a", Value::Other));
        assert_eq!(read("a=1, a=2"), one("a", Value::Integer(2)));
        assert_eq!(read(""), Some(Vec::new()));
        for broken in [
            "A=1",
            "a=",
            "a=1,",
            "a=1 b=2",
            "a=?2",
            "a=\"x",
            "a=(1",
            "a=1.2345",
            "a=1234567890123456",
            ",a",
        ] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn lines_are_joined() {
        let both =
            Dictionary::parse([b"a=1".as_slice(), b"b".as_slice()].into_iter()).expect("valid");
        assert_eq!(both.members().count(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let read = Dictionary::parse(std::iter::once(bytes.as_slice()));
            prop_assert!(read.is_none_or(|d| d.members.len() <= MEMBERS_MAX + 1));
        }

        #[test]
        fn integers_survive(n in -999_999_999_999_999i64..=999_999_999_999_999) {
            prop_assert_eq!(read(&format!("k={n}")), Some(vec![("k".to_owned(), Value::Integer(n))]));
        }
    }
}
