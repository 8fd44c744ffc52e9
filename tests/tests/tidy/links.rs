//! Links in Markdown: every relative link must lead to a file or folder of the repository, and every `#anchor` to a
//! heading there. Links to other places (`https:` and so on) are not followed.

use std::collections::HashMap;

use crate::tree::Tree;

/// Links that lead nowhere.
pub fn links(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (path, text) in tree.ending(".md") {
        for (line, target) in targets(text) {
            if !is_foreign(&target)
                && let Some(why) = broken(tree, path, &target)
            {
                out.push(format!("{path}:{line}: {target}: {why}"));
            }
        }
    }
    out
}

fn is_foreign(target: &str) -> bool {
    let scheme = target.split_once(':').map(|(s, _)| s);
    scheme.is_some_and(|s| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)))
}

fn broken(tree: &Tree, from: &str, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(f, a)| (f, Some(a)));
    let Some(path) = resolve(from, file) else { return Some("leads out of the repository".into()) };
    if !tree.exists(&path) {
        return Some("no such file".into());
    }
    let anchor = anchor?;
    let Some(text) = tree.get(&path).filter(|_| path.ends_with(".md")) else {
        return Some("an anchor in what is no Markdown".into());
    };
    (!anchors(text).iter().any(|a| a == anchor)).then(|| "no such heading".into())
}

/// The path relative to the top that `link` means in the file `from`; `None` above the top.
fn resolve(from: &str, link: &str) -> Option<String> {
    if link.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = match link.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').collect::<Vec<_>>().split_last().map(|(_, dir)| dir.to_vec()).unwrap_or_default(),
    };
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Targets of `[text](target)`, `[text](target "title")` and `[label]: target`, with their lines; code left out.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (line, content) in prose(text) {
        let found: Vec<&str> = content.match_indices("](").map(|(at, _)| &content[at + 2..]).collect();
        out.extend(found.iter().filter_map(|rest| Some((line, clean(rest.split(')').next()?)?))));
        if let Some((_, rest)) = content.strip_prefix('[').and_then(|c| c.split_once("]: ")) {
            out.extend(clean(rest).map(|t| (line, t)));
        }
    }
    out
}

fn clean(target: &str) -> Option<String> {
    let first = target.split_whitespace().next()?;
    Some(first.trim_start_matches('<').trim_end_matches('>').to_owned())
}

/// Lines outside fenced code, numbered from 1, with `code spans` blanked.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut fence: Option<&str> = None;
    for (i, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|m| start.starts_with(m));
        match (fence, mark) {
            (None, Some(_)) => fence = mark,
            (Some(open), Some(close)) if open == close => fence = None,
            (None, None) => out.push((i + 1, without_spans(line))),
            _ => {}
        }
    }
    out
}

fn without_spans(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return line.to_owned(); // a lone backtick opens nothing
    }
    parts.into_iter().step_by(2).collect::<Vec<_>>().join("` `")
}

/// The anchors of all headings as GitHub makes them: lower case, blanks to hyphens, punctuation gone, repeated ones
/// numbered.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut out = Vec::new();
    let headings = fenced_out(text);
    for heading in headings {
        let slug: String = heading
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        let n = seen.entry(slug.clone()).or_insert(0);
        out.push(if *n == 0 { slug } else { format!("{slug}-{n}") });
        *n += 1;
    }
    out
}

/// The text of every heading outside fenced code.
fn fenced_out(text: &str) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    let lines = prose(text).into_iter().map(|(n, _)| all[n - 1]);
    lines
        .filter(|l| l.starts_with('#'))
        .map(|l| l.trim_start_matches('#'))
        .filter(|l| l.starts_with(' '))
        .map(|l| l.trim().to_owned())
        .collect()
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let bad = "\
# Top
[a](gone.md) and [b](../../above.md)
[c](#nothing) [d](other.md#gone) [e](other.md \"title\")
[f]: missing/
```
[in code](gone.md)
```
`[span](gone.md)` [ok](https://x.example/y#z) [ok](#top) [ok](other.md#a-b--c-1) [ok](./) [ok](../README.md)
";
    let other = "# A b & `c`\n\n## A b & c\n```\n# gone\n```\n";
    let tree = Tree::planted(&[("docs/x.md", bad), ("docs/other.md", other), ("README.md", "")]);
    let found = links(&tree);
    let has = |s: &str| found.iter().any(|f| f == s);
    assert!(has("docs/x.md:2: gone.md: no such file"), "{found:?}");
    assert!(has("docs/x.md:2: ../../above.md: leads out of the repository"));
    assert!(has("docs/x.md:3: #nothing: no such heading"));
    assert!(has("docs/x.md:3: other.md#gone: no such heading"));
    assert!(has("docs/x.md:4: missing/: no such file"));
    assert_eq!(found.len(), 5, "{found:?}");
}
