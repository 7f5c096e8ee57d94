//! YAML and JSON as trees whose nodes have lines.
//!
//! The parser (saphyr-parser) gives events; the tree is built here with limits, because a parser's own trees copy what an
//! alias repeats: a few lines of YAML can become gigabytes so. Here an alias shares its node, and what it repeats counts towards
//! the limit, because readers visit it again.

use std::{collections::HashMap, path::Path, rc::Rc};

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::files::at;
use crate::config::{ConfigError, Origin, Problem};

/// The deepest nesting.
const DEEPEST: usize = 32;
/// The most nodes of one file, those that aliases repeat included.
const MOST_NODES: usize = 50_000;
/// The most keys of one mapping.
const MOST_KEYS: usize = 4096;
/// Bytes of the largest YAML file: its parser takes time that grows faster than the file for some texts.
const LARGEST: usize = 1024 * 1024;
/// Bytes of the longest line, for the same reason.
const LONGEST_LINE: usize = 64 * 1024;

/// A node of a file, and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    path: Rc<Path>,
    line: usize,
    nodes: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A scalar's text. That of null is `None`.
    Scalar(Option<String>),
    List(Vec<Rc<Node>>),
    /// In the order of the file. A key that is repeated is there twice.
    Map(Vec<Pair>),
}

#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) key: String,
    /// Where the key is.
    pub(super) origin: Origin,
    pub(super) value: Rc<Node>,
}

impl Content {
    /// Returns how many nodes a node with this content is, itself included.
    fn nodes(&self) -> usize {
        let sum = |nodes: &mut dyn Iterator<Item = usize>| nodes.fold(1, usize::saturating_add);
        match self {
            Self::Scalar(_) => 1,
            Self::List(items) => sum(&mut items.iter().map(|item| item.nodes)),
            Self::Map(pairs) => sum(&mut pairs.iter().map(|pair| pair.value.nodes.saturating_add(1))),
        }
    }
}

impl Node {
    /// Returns how many nodes there are from this one on; those that an alias repeats count each time.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    pub(super) fn origin(&self) -> Origin {
        at(&self.path, self.line)
    }

    /// Returns a node with other content at the place of this one.
    pub(super) fn with(&self, content: Content) -> Rc<Self> {
        Rc::new(Self { nodes: content.nodes(), content, path: Rc::clone(&self.path), line: self.line })
    }

    /// Returns the pairs of a mapping; none if it is something else.
    pub(super) fn pairs(&self) -> &[Pair] {
        match &self.content {
            Content::Map(pairs) => pairs,
            Content::Scalar(_) | Content::List(_) => &[],
        }
    }

    /// Returns the last value of a key; null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&Rc<Node>> {
        let pair = self.pairs().iter().rev().find(|pair| pair.key == key);
        pair.map(|pair| &pair.value).filter(|node| !node.is_null())
    }

    /// Returns the items of a list; none if it is something else.
    pub(super) fn items(&self) -> &[Rc<Node>] {
        match &self.content {
            Content::List(items) => items,
            Content::Scalar(_) | Content::Map(_) => &[],
        }
    }

    /// Returns a scalar's text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(text) => text.as_deref(),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.content, Content::Scalar(None))
    }

    /// Returns a boolean, by the words of YAML 1.1.
    pub(super) fn boolean(&self) -> Option<bool> {
        super::time::boolean(self.text()?)
    }

    pub(super) fn refuse(&self, why: impl Into<String>) -> ConfigError {
        ConfigError::new(self.origin(), Problem::Unsupported(why.into()))
    }

    /// Returns the items of a list; none of null.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn list(&self, key: &str) -> Result<&[Rc<Node>], ConfigError> {
        match &self.content {
            Content::List(items) => Ok(items),
            Content::Scalar(None) => Ok(&[]),
            Content::Scalar(Some(_)) => Err(self.wrong_type(key, "one value", "a list")),
            Content::Map(_) => Err(self.wrong_type(key, "a mapping", "a list")),
        }
    }

    /// Returns the pairs of a mapping; none of null.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn mapping(&self, key: &str) -> Result<&[Pair], ConfigError> {
        match &self.content {
            Content::Map(pairs) => Ok(pairs),
            Content::Scalar(None) => Ok(&[]),
            Content::Scalar(Some(_)) => Err(self.wrong_type(key, "one value", "a mapping")),
            Content::List(_) => Err(self.wrong_type(key, "a list", "a mapping")),
        }
    }

    fn wrong_type(&self, key: &str, found: &'static str, wanted: &'static str) -> ConfigError {
        ConfigError::new(self.origin(), Problem::WrongType { key: key.to_owned(), found, wanted })
    }

    /// Returns a scalar's text.
    ///
    /// # Errors
    /// It is a list, a mapping or null.
    pub(super) fn require_text(&self, key: &str) -> Result<&str, ConfigError> {
        let found = match &self.content {
            Content::Scalar(Some(text)) => return Ok(text),
            Content::Scalar(None) => "nothing",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        };
        Err(self.wrong_type(key, found, "a text or a number"))
    }

    /// Parses a scalar.
    ///
    /// # Errors
    /// It is none, or not what is wanted.
    pub(super) fn parsed<T: std::str::FromStr>(&self, key: &str, wanted: &str) -> Result<T, ConfigError> {
        let text = self.require_text(key)?;
        text.parse().map_err(|_| {
            let (key, value) = (key.to_owned(), text.to_owned());
            ConfigError::new(self.origin(), Problem::BadValue { key, value, wanted: wanted.to_owned() })
        })
    }
}

/// Parses YAML. An empty text is null.
///
/// # Errors
/// The text is no YAML, has several documents, or is beyond a limit.
pub(super) fn yaml(path: &Path, text: &str) -> Result<Rc<Node>, ConfigError> {
    let refuse = |line: usize, why: &str| ConfigError::new(at(path, line), Problem::Syntax(why.to_owned()));
    if text.len() > LARGEST {
        return Err(refuse(1, "more than 1048576 bytes, the limit for YAML"));
    }
    if let Some((line, _)) = text.lines().enumerate().find(|(_, line)| line.len() > LONGEST_LINE) {
        return Err(refuse(line + 1, "a line of more than 65536 bytes, the limit for YAML"));
    }
    let mut builder = Builder { path: path.into(), ..Builder::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| refuse(error.marker().line(), error.info()))?;
        let line = span.start.line();
        builder.event(event, line).map_err(|why| refuse(line, why))?;
    }
    Ok(builder.root.take().unwrap_or_else(|| builder.node(Content::Scalar(None), 1)))
}

/// Parses JSON: checked by its own rules, then read for its lines as YAML, which has JSON in it.
///
/// # Errors
/// The text is no JSON, or is beyond a limit.
pub(super) fn json(path: &Path, text: &str) -> Result<Rc<Node>, ConfigError> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| {
        let why = error.to_string();
        // The line is the origin's.
        let why = why.split(" at line ").next().unwrap_or(&why).to_owned();
        ConfigError::new(at(path, error.line().max(1)), Problem::Syntax(why))
    })?;
    // Within strings, JSON has no tabs; between tokens, YAML does not take them everywhere.
    yaml(path, &text.replace('\t', " "))
}

/// A list or a mapping that is not complete yet.
enum Open {
    List { items: Vec<Rc<Node>>, line: usize, anchor: usize },
    Map { pairs: Vec<Pair>, key: Option<(String, usize)>, line: usize, anchor: usize },
}

struct Builder {
    path: Rc<Path>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    nodes: usize,
    documents: usize,
    root: Option<Rc<Node>>,
}

impl Builder {
    fn new() -> Self {
        Self {
            path: Path::new("").into(),
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            documents: 0,
            root: None,
        }
    }

    fn node(&self, content: Content, line: usize) -> Rc<Node> {
        Rc::new(Node { nodes: content.nodes(), content, path: Rc::clone(&self.path), line })
    }

    fn event(&mut self, event: Event, line: usize) -> Result<(), &'static str> {
        self.count(1)?;
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    Err("a second document begins here; write it into another file")
                } else {
                    Ok(())
                }
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).map(Rc::clone);
                let node = node.ok_or("an alias of what is not complete yet")?;
                self.count(node.nodes)?;
                self.place(node, line)
            }
            Event::Scalar(text, style, anchor, _) => {
                let is_null = style == ScalarStyle::Plain
                    && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let content = Content::Scalar((!is_null).then(|| text.into_owned()));
                let node = self.node(content, line);
                self.done(node, anchor, line)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::List { items: Vec::new(), line, anchor }),
            Event::MappingStart(anchor, _) => {
                self.begin(Open::Map { pairs: Vec::new(), key: None, line, anchor })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { items, line, anchor }) => {
                    let node = self.node(Content::List(items), line);
                    self.done(node, anchor, line)
                }
                Some(Open::Map { pairs, line, anchor, .. }) => {
                    let node = self.node(Content::Map(pairs), line);
                    self.done(node, anchor, line)
                }
                None => Ok(()),
            },
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), &'static str> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MOST_NODES {
            return Err("more than 50000 nodes, with those that aliases repeat, the limit for a file");
        }
        Ok(())
    }

    fn begin(&mut self, open: Open) -> Result<(), &'static str> {
        self.open.push(open);
        if self.open.len() > DEEPEST { Err("nested more than 32 levels deep, the limit") } else { Ok(()) }
    }

    fn done(&mut self, node: Rc<Node>, anchor: usize, line: usize) -> Result<(), &'static str> {
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.place(node, line)
    }

    fn place(&mut self, node: Rc<Node>, line: usize) -> Result<(), &'static str> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { pairs, key, .. }) => match key.take() {
                Some((key, line)) => {
                    if pairs.len() == MOST_KEYS {
                        return Err("more than 4096 keys in one mapping, the limit");
                    }
                    pairs.push(Pair { key, origin: at(&self.path, line), value: node });
                }
                None => match &node.content {
                    Content::Scalar(text) => *key = Some((text.clone().unwrap_or_default(), line)),
                    Content::List(_) | Content::Map(_) => return Err("a key that is a list or a mapping"),
                },
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::time::{ClockId, clock_gettime};

    use super::*;

    /// Returns the time of this thread on a processor, which does not depend on other programs.
    fn processor_time() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
    }

    fn refusal(text: &str) -> String {
        yaml(Path::new("f"), text).unwrap_err().to_string()
    }

    #[test]
    fn nodes_have_their_lines() {
        let text = "a:\n  b: 1\n  c: [x, 'y']\nd: &n\n  - ~\ne: *n\n";
        let root = yaml(Path::new("f"), text).unwrap();
        let lines: Vec<_> = root.pairs().iter().map(|pair| format!("{} {}", pair.key, pair.origin)).collect();
        assert_eq!(lines, ["a f:1", "d f:4", "e f:6"]);
        let a = root.get("a").unwrap();
        assert_eq!(a.get("b").unwrap().text(), Some("1"));
        let items: Vec<_> = a.get("c").unwrap().items().iter().map(|item| item.text().unwrap()).collect();
        assert_eq!(items, ["x", "y"]);
        assert!(root.get("e").unwrap().items()[0].is_null());
    }

    #[test]
    fn json_is_checked_by_its_own_rules_and_has_lines() {
        let root = json(Path::new("f"), "{\n\t\"a\":\t{\"b\": [1, true]},\n\t\"c\":null\n}").unwrap();
        let lines: Vec<_> = root.pairs().iter().map(|pair| format!("{} {}", pair.key, pair.origin)).collect();
        assert_eq!(lines, ["a f:2", "c f:3"]);
        let refusal = |text: &str| json(Path::new("f"), text).unwrap_err().to_string();
        assert_eq!(refusal("{\n'a': 1}"), "f:2: key must be a string");
        assert_eq!(refusal("a: 1"), "f:1: expected value");
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert_eq!(refusal(&deep), "f:1: nested more than 32 levels deep, the limit");
    }

    /// Returns aliases of aliases: nine times as many nodes with each level.
    fn bomb(levels: usize) -> String {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..levels {
            let before = vec![format!("*a{}", level - 1); 9].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        text
    }

    #[test]
    fn what_aliases_repeat_counts() {
        let nodes = yaml(Path::new("f"), &bomb(3)).unwrap().nodes();
        // The mapping, three keys, and lists of 9 scalars, of 9 such lists, and of 9 of these.
        assert_eq!(nodes, 1 + 3 + 10 + (1 + 9 * 10) + (1 + 9 * 91));
        let refused = "f:5: more than 50000 nodes, with those that aliases repeat, the limit for a file";
        assert_eq!(refusal(&bomb(25)), refused);
    }

    #[test]
    fn hostile_texts_end_within_a_second() {
        let texts = [
            bomb(25),
            "[".repeat(60_000),
            "{a: ".repeat(15_000),
            "- ".repeat(30_000),
            "? ".repeat(30_000),
            "a: &a [*a]\n".to_owned(),
            "x".repeat(10 * 1024 * 1024),
            format!("a: {}\n", "x ".repeat(30_000)),
            "- a\n".repeat(200_000),
            "a: b\n".repeat(200_000),
            "'".repeat(60_000),
            "&a ".repeat(20_000),
            "!a ".repeat(20_000),
            "a: |\n".to_owned() + &" x\n".repeat(300_000),
            "\n".repeat(1_000_000),
            "#\n".repeat(500_000),
            "---\n".repeat(100_000),
            (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
        ];
        for text in texts {
            let started = processor_time();
            let _ = yaml(Path::new("f"), &text);
            let _ = json(Path::new("f"), &text);
            let took = processor_time() - started;
            let beginning: String = text.chars().take(30).collect();
            assert!(took < Duration::from_secs(1), "{beginning:?}: {took:?}");
        }
    }

    #[test]
    fn limits_are_named_with_their_line() {
        assert_eq!(
            refusal(&("a: ".to_owned() + &"[".repeat(40))),
            "f:1: nested more than 32 levels deep, the limit"
        );
        assert_eq!(
            refusal("a: 1\n---\nb: 2\n"),
            "f:2: a second document begins here; write it into another file"
        );
        assert_eq!(refusal("a: 1\n[b]: 2\n"), "f:2: a key that is a list or a mapping");
        assert!(refusal("a: [1\nb: 2").starts_with("f:"), "{}", refusal("a: [1\nb: 2"));
    }
}
