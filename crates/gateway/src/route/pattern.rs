//! Path patterns, and the tree that finds the most specific of many: literal before parameter before rest.

use std::borrow::Cow;

use foldhash::HashMap;
use smallvec::SmallVec;

use super::path::compared;

const MAX_SEGMENTS: usize = 32;

/// A parsed pattern: `/a/{id}/b`, `/files/{*path}`, `/files/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    /// Matches paths with a final slash, when it has one itself or ends in a rest.
    slash: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<[u8]>),
    Param(Box<str>),
    Rest(Box<str>),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_prefix('/').ok_or("must begin with `/`")?;
        let mut segments = Vec::new();
        let mut slash = false;
        let mut pieces = body.split('/').peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            if piece.is_empty() {
                if last {
                    slash = true;
                    continue;
                }
                return Err("must not have empty segments".to_owned());
            }
            segments.push(segment(piece, last)?);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("must have at most {MAX_SEGMENTS} segments"));
        }
        let pattern = Self { segments, slash };
        let mut names: Vec<&str> = pattern.names().collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        if names.len() < all {
            return Err("must not use a name twice".to_owned());
        }
        Ok(pattern)
    }

    /// The names of its parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) | Segment::Rest(name) => Some(&**name),
            Segment::Literal(_) => None,
        })
    }

    /// True when it holds no parameter.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.segments
            .iter()
            .all(|s| matches!(s, Segment::Literal(_)))
    }

    /// The parameters of a path that it is known to match, encoded as they were sent.
    #[must_use]
    pub fn capture<'p>(&'p self, path: &'p str) -> SmallVec<[(&'p str, &'p str); 4]> {
        let mut found = SmallVec::new();
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        for segment in &self.segments {
            let (piece, behind) = rest.split_once('/').unwrap_or((rest, ""));
            match segment {
                Segment::Literal(_) => {}
                Segment::Param(name) => found.push((&**name, piece)),
                Segment::Rest(name) => found.push((&**name, rest)),
            }
            rest = behind;
        }
        found
    }
}

fn segment(piece: &str, last: bool) -> Result<Segment, String> {
    let name = |name: &str| {
        let good = !name.is_empty()
            && name.len() <= 40
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if good {
            Ok(name.into())
        } else {
            Err(format!(
                "`{{{name}}}` must be named with letters, digits and `_`"
            ))
        }
    };
    if piece == "*" || piece.starts_with("{*") {
        if !last {
            return Err("the rest must be the last segment".to_owned());
        }
        let inner = piece.strip_prefix("{*").and_then(|p| p.strip_suffix('}'));
        return Ok(Segment::Rest(if piece == "*" {
            "rest".into()
        } else {
            name(inner.unwrap_or(""))?
        }));
    }
    if let Some(inner) = piece.strip_prefix('{') {
        return Ok(Segment::Param(name(inner.strip_suffix('}').unwrap_or(""))?));
    }
    if piece.contains(['{', '}', '*', '?', '#', ';', '\\']) || piece == "." || piece == ".." {
        return Err(format!(
            "`{piece}` is not a segment: a parameter fills a whole segment"
        ));
    }
    Ok(Segment::Literal(compared(piece).into_owned().into()))
}

/// Values by pattern.
#[derive(Debug, Clone)]
pub struct Tree<V> {
    root: Node<V>,
    deepest: usize,
}

#[derive(Debug, Clone)]
struct Node<V> {
    literals: HashMap<Box<[u8]>, Node<V>>,
    param: Option<Box<Node<V>>>,
    /// Values of patterns that end here.
    here: Vec<V>,
    /// Values of patterns whose rest begins here.
    rest: Vec<V>,
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self {
            literals: HashMap::default(),
            param: None,
            here: Vec::new(),
            rest: Vec::new(),
        }
    }
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            deepest: 0,
        }
    }
}

impl<V> Tree<V> {
    /// Adds a value; several values of one pattern are tried in the order of adding.
    pub fn insert(&mut self, pattern: &Pattern, value: V) {
        self.deepest = self.deepest.max(pattern.segments.len());
        let mut node = &mut self.root;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Param(_) => node.param.get_or_insert_default(),
                Segment::Rest(_) => {
                    node.rest.push(value);
                    return;
                }
            };
        }
        node.here.push(value);
    }

    /// True when nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.literals.is_empty()
            && self.root.param.is_none()
            && self.root.here.is_empty()
            && self.root.rest.is_empty()
    }

    /// The value of the most specific pattern that `accept` takes. A final slash does not matter.
    pub fn find<'t>(&'t self, path: &str, mut accept: impl FnMut(&V) -> bool) -> Option<&'t V> {
        let body = path.strip_prefix('/').unwrap_or(path);
        let body = body.strip_suffix('/').unwrap_or(body);
        let mut segments: SmallVec<[Cow<'_, [u8]>; 16]> = SmallVec::new();
        // Nothing behind the deepest pattern can be told apart, but its presence must be known.
        for segment in body.split('/').take(self.deepest + 1) {
            if !(segment.is_empty() && body.is_empty()) {
                segments.push(compared(segment));
            }
        }
        walk(&self.root, &segments, &mut accept)
    }
}

/// Depth is bounded by the deepest pattern; each level has two ways at most, and patterns are few.
fn walk<'t, V>(
    node: &'t Node<V>,
    segments: &[Cow<'_, [u8]>],
    accept: &mut impl FnMut(&V) -> bool,
) -> Option<&'t V> {
    if let Some((first, behind)) = segments.split_first() {
        if let Some(next) = node.literals.get(&**first)
            && let Some(found) = walk(next, behind, accept)
        {
            return Some(found);
        }
        if let Some(next) = &node.param
            && let Some(found) = walk(next, behind, accept)
        {
            return Some(found);
        }
    } else if let Some(found) = node.here.iter().find(|v| accept(v)) {
        return Some(found);
    }
    node.rest.iter().find(|v| accept(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(patterns: &[&'static str]) -> Tree<&'static str> {
        let mut tree = Tree::default();
        for pattern in patterns {
            tree.insert(&Pattern::parse(pattern).unwrap(), *pattern);
        }
        tree
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let tree = tree(&[
            "/",
            "/notes",
            "/notes/{id}",
            "/notes/new",
            "/notes/{id}/tags/*",
            "/*",
            "/notes/new/{*x}",
        ]);
        for (path, wanted) in [
            ("/", "/"),
            ("/notes", "/notes"),
            ("/notes/", "/notes"),
            ("/notes/7", "/notes/{id}"),
            ("/notes/new", "/notes/new"),
            ("/notes/n%65w", "/notes/new"),
            ("/notes/new;v=1", "/notes/new"),
            ("/notes/7/tags/a/b", "/notes/{id}/tags/*"),
            ("/notes/7/other", "/*"),
            ("/notes/new/a/b/c/d", "/notes/new/{*x}"),
            ("/else", "/*"),
        ] {
            assert_eq!(tree.find(path, |_| true), Some(&wanted), "{path}");
        }
        assert_eq!(
            tree.find("/notes/new", |v| *v != "/notes/new"),
            Some(&"/notes/new/{*x}")
        );
    }

    #[test]
    fn an_encoded_slash_is_part_of_its_segment() {
        let tree = tree(&["/a/{x}", "/a/b/c"]);
        assert_eq!(tree.find("/a/b%2Fc", |_| true), Some(&"/a/{x}"));
    }

    #[test]
    fn parameters_are_captured_as_sent() {
        let pattern = Pattern::parse("/a/{id}/{*rest}").unwrap();
        assert_eq!(
            pattern.capture("/a/x%2Fy/b/c")[..],
            [("id", "x%2Fy"), ("rest", "b/c")]
        );
        for bad in [
            "a", "/a//b", "/{a}{b}", "/{a}/{a}", "/{*a}/b", "/a*", "/{}", "/..",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
