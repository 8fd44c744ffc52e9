//! A scanner for rustfmt-formatted Rust: good enough to count lines and braces and to find words, no parser.
//!
//! [`bare`] blanks comments, strings and character literals and keeps every line break, so that line numbers hold and a
//! brace or a word that is left is code. [`without_tests`] blanks `#[cfg(test)]` items as well.

use std::ops::Range;

/// The source with comments, strings and characters replaced by blanks.
pub fn bare(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let end = skipped_until(&chars, i);
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

/// Where the comment, string or character that starts at `i` ends; `i` itself when none starts there.
fn skipped_until(c: &[char], i: usize) -> usize {
    let at = |k: usize| c.get(k).copied().unwrap_or('\0');
    let word_before = i > 0 && is_word(c[i - 1]);
    match at(i) {
        '/' if at(i + 1) == '/' => (i..c.len()).find(|k| c[*k] == '\n').unwrap_or(c.len()),
        '/' if at(i + 1) == '*' => block_comment_end(c, i),
        '"' => string_end(c, i),
        'b' | 'c' if !word_before && at(i + 1) == '"' => string_end(c, i + 1),
        'b' if !word_before && at(i + 1) == '\'' => char_end(c, i + 1).unwrap_or(i),
        'b' | 'c' if !word_before && at(i + 1) == 'r' => raw_end(c, i + 1).unwrap_or(i),
        'r' if !word_before => raw_end(c, i).unwrap_or(i),
        '\'' => char_end(c, i).unwrap_or(i),
        _ => i,
    }
}

fn block_comment_end(c: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i + 1 < c.len() {
        match (c[i], c[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    c.len()
}

fn string_end(c: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < c.len() && c[i] != '"' {
        i += if c[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(c.len())
}

/// `r"…"`, `r#"…"#` and so on; `None` for anything else that starts with an r, a raw identifier for one.
fn raw_end(c: &[char], r: usize) -> Option<usize> {
    let hashes = c[r + 1..].iter().take_while(|x| **x == '#').count();
    let open = r + 1 + hashes;
    if c.get(open) != Some(&'"') {
        return None;
    }
    let closes = |k: &usize| c[*k] == '"' && c[*k + 1..].iter().take_while(|x| **x == '#').count() >= hashes;
    Some((open + 1..c.len()).find(closes).map_or(c.len(), |k| k + 1 + hashes))
}

/// The end of a character literal; `None` for a lifetime or a loop label.
fn char_end(c: &[char], quote: usize) -> Option<usize> {
    if c.get(quote + 1) == Some(&'\\') {
        return (quote + 3..c.len()).find(|k| c[*k] == '\'').map(|k| k + 1);
    }
    (c.get(quote + 2) == Some(&'\'')).then_some(quote + 3)
}

/// Where the items under `#[cfg(test)]` stand in [`bare`] text, attribute included, as byte ranges in order.
pub fn test_items(bare: &str) -> Vec<Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let (mut out, mut from) = (Vec::new(), 0);
    while let Some(at) = bare[from..].find(MARK).map(|at| from + at) {
        let item = at + MARK.len();
        from = item + item_len(&bare[item..]);
        out.push(at..from);
    }
    out
}

/// [`bare`] text in which every item under `#[cfg(test)]` is blank as well.
pub fn without_tests(bare: &str) -> String {
    let (mut out, mut from) = (String::with_capacity(bare.len()), 0);
    for item in test_items(bare) {
        out.push_str(&bare[from..item.start]);
        out.extend(bare[item.clone()].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        from = item.end;
    }
    out + &bare[from..]
}

/// Bytes up to the end of the first item: its closing brace, or a semicolon or comma outside all brackets.
fn item_len(text: &str) -> usize {
    let mut depth = 0i32;
    for (i, c) in text.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth < 0 || (depth == 0 && matches!(c, '}' | ';' | ',')) {
            return if depth < 0 { i } else { i + 1 };
        }
    }
    text.len()
}

/// Whether `c` can be part of a Rust identifier.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte offsets at which `word` stands in `text` with no identifier character directly before or behind it.
pub fn word_offsets(text: &str, word: &str) -> Vec<usize> {
    let free = |at: &usize| {
        let before = text[..*at].chars().next_back();
        let behind = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !behind.is_some_and(is_word)
    };
    text.match_indices(word).map(|(at, _)| at).filter(free).collect()
}

/// Line number of a byte offset, counted from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// A function found in bare text.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// First line, from 1.
    pub line: usize,
    /// Lines from `fn` to the closing brace, both included.
    pub lines: usize,
}

/// Every function with a body, nested ones too.
pub fn functions(bare: &str) -> Vec<Function> {
    word_offsets(bare, "fn").into_iter().filter_map(|at| function(bare, at)).collect()
}

fn function(bare: &str, at: usize) -> Option<Function> {
    let rest = &bare[at..];
    let after = rest[2..].trim_start();
    let name: String = after.chars().take_while(|c| is_word(*c)).collect();
    if name.is_empty() {
        return None; // a function pointer's type
    }
    let (mut depth, mut body) = (0i32, false);
    for (i, c) in rest.char_indices() {
        match c {
            ';' if depth == 0 => return None, // a declaration without a body
            '{' if depth == 0 => (depth, body) = (1, true),
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if body && depth == 0 {
            return Some(Function { name, line: line_of(bare, at), lines: rest[..i].matches('\n').count() + 1 });
        }
    }
    None
}

#[test]
fn comments_strings_and_characters_are_blank_and_lines_hold() {
    let source =
        "a(\"{ \\\" }\"); // {\nlet c = '{'; let d = '\\''; /* { /* { */ */ b::<'x>(r#\"}\"}\"#, b'{', br\"{\");\n";
    let out = bare(source);
    assert_eq!(out.matches('\n').count(), 2);
    assert!(!out.contains('{') && !out.contains('}'), "{out}");
    assert!(out.contains("a(") && out.contains("b::<'x>("), "{out}");
}

#[test]
fn raw_identifiers_and_labels_are_code() {
    let source = "'outer: loop { r#fn(); for<'a> x; }";
    assert_eq!(bare(source), source);
}

#[test]
fn test_items_are_blank_wherever_they_stand() {
    let source = "fn a() {}\n#[cfg(test)]\nfn helper() {\n  one\n}\nfn b() {}\n#[cfg(test)]\nmod tests;\nfn c() {}\n";
    let out = without_tests(source);
    assert_eq!(out.lines().count(), source.lines().count());
    assert!(!out.contains("helper") && !out.contains("one") && !out.contains("tests"), "{out}");
    assert!(["fn a", "fn b", "fn c"].iter().all(|f| out.contains(f)), "{out}");
}

#[test]
fn functions_are_measured_from_fn_to_brace() {
    let source = "trait T { fn none(&self, a: [u8; 3]); }\nfn one() { 1 }\nfn two<F: Fn() -> [u8; 2]>(f: fn(u8))\nwhere\n    F: X,\n{\n    fn inner() {\n    }\n}\n";
    let f = |name: &str, line, lines| Function { name: name.into(), line, lines };
    assert_eq!(functions(source), [f("one", 2, 1), f("two", 3, 7), f("inner", 7, 2)]);
}

#[test]
fn words_stand_alone() {
    assert_eq!(word_offsets("net internet net_x a::net", "net"), [0, 22]);
}
