//! The outline of a file: its functions, its public types, and how many of its lines are tests.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// The line of its name, counted from 1.
    pub line: usize,
    /// The lines from its name to its closing brace.
    pub length: usize,
    /// The line of its opening brace.
    pub opens: usize,
}

/// The functions and public types of a file.
#[derive(Debug, Default)]
pub struct Outline {
    /// All functions, including those in test modules.
    pub functions: Vec<Function>,
    /// Structs, enums, unions, traits and aliases that are `pub` and not in test modules, with their lines.
    pub types: Vec<(usize, String)>,
    /// Lines of items that are `#[cfg(test)]`.
    pub test_lines: usize,
}

impl Outline {
    /// Reads the outline of a file's text.
    ///
    /// # Errors
    /// The text is not Rust.
    pub fn of(text: &str) -> Result<Self> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
        let mut outline = Self::default();
        outline.walk(tokens, false);
        Ok(outline)
    }

    fn walk(&mut self, tokens: TokenStream, in_tests: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        // The line of the attribute, between it and the end of its item.
        let mut tests_from = None;
        for (place, token) in tokens.iter().enumerate() {
            let following = tokens.get(place + 1..).unwrap_or_default();
            match token {
                TokenTree::Punct(punct)
                    if !in_tests && punct.as_char() == '#' && is_cfg_test(following.first()) =>
                {
                    tests_from.get_or_insert(punct.span().start().line);
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => {
                    self.end_tests(tests_from.take(), punct.span().start().line);
                }
                TokenTree::Group(group) => {
                    self.walk(group.stream(), in_tests || tests_from.is_some());
                    if group.delimiter() == Delimiter::Brace {
                        self.end_tests(tests_from.take(), group.span_close().start().line);
                    }
                }
                TokenTree::Ident(ident) if ident == "fn" => self.functions.extend(function(following)),
                TokenTree::Ident(ident) if ident == "pub" && !in_tests && tests_from.is_none() => {
                    self.types.extend(public_type(following));
                }
                _ => {}
            }
        }
    }

    fn end_tests(&mut self, from: Option<usize>, to: usize) {
        self.test_lines += from.map_or(0, |from| to - from + 1);
    }
}

fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// Reads the function whose name and body follow; `None` for a type of functions, or without a body.
fn function(following: &[TokenTree]) -> Option<Function> {
    let TokenTree::Ident(name) = following.first()? else { return None };
    let body = following.iter().find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(Some(group)),
        TokenTree::Punct(punct) if punct.as_char() == ';' => Some(None),
        _ => None,
    });
    let body: &Group = body??;
    let line = name.span().start().line;
    Some(Function {
        name: name.to_string(),
        line,
        length: body.span_close().start().line - line + 1,
        opens: body.span_open().start().line,
    })
}

fn public_type(following: &[TokenTree]) -> Option<(usize, String)> {
    let [TokenTree::Ident(keyword), TokenTree::Ident(name), ..] = following else { return None };
    let is_type = ["struct", "enum", "union", "trait", "type"].iter().any(|word| keyword == word);
    is_type.then(|| (name.span().start().line, name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_has_functions_of_tests_and_no_types_of_tests() {
        let text = "pub struct A;\n\
                    pub(crate) struct B;\n\
                    fn f(g: fn(u8)) -> u8 {\n    1\n}\n\
                    trait T {\n    fn without_body();\n}\n\
                    #[cfg(test)]\nuse x::Y;\n\
                    #[cfg(test)]\nmod tests {\n    pub struct A;\n    fn g() {}\n}\n\
                    impl A {\n    pub fn h() {}\n}\n";
        let outline = Outline::of(text).unwrap();
        let functions: Vec<_> =
            outline.functions.iter().map(|f| (f.name.as_str(), f.line, f.length)).collect();
        assert_eq!(functions, [("f", 3, 3), ("g", 14, 1), ("h", 17, 1)]);
        assert_eq!(outline.types, [(1, "A".to_owned())]);
        assert_eq!(outline.test_lines, 7);
    }
}
