//! Printing: text for people, in tables that fit the terminal, or JSON. A reader that goes away (a pager, `head`) ends the program
//! quietly.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// How to print.
pub struct Output {
    json: bool,
    width: Option<usize>,
}

/// Narrowest column that a table is squeezed to.
const NARROW: usize = 8;

impl Output {
    /// To standard output.
    pub fn new(json: bool) -> Output {
        let stdout = io::stdout();
        let width = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
        Output { json, width: width.map(|size| usize::from(size.ws_col)).filter(|w| *w >= 20) }
    }

    /// Whether a person reads it.
    pub fn is_terminal(&self) -> bool {
        !self.json && self.width.is_some()
    }

    /// Whether a program reads it.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints JSON if that is wanted, else the text.
    pub fn print<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> io::Result<()> {
        let text = self.text(value, text)?;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// What is printed.
    pub fn text<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> io::Result<String> {
        Ok(match self.json {
            true => serde_json::to_string_pretty(value)? + "\n",
            false => text(),
        })
    }

    /// Prints rows as JSON, or as a table.
    pub fn table<T: Serialize>(&self, rows: &[T], head: &[&str], cells: impl Fn(&T) -> Vec<String>) -> io::Result<()> {
        self.print(&rows, || self.lines(rows, head, cells))
    }

    /// Rows as a table.
    pub fn lines<T>(&self, rows: &[T], head: &[&str], cells: impl Fn(&T) -> Vec<String>) -> String {
        render(head, &rows.iter().map(cells).collect::<Vec<_>>(), self.width)
    }
}

/// A table: columns as wide as needed, numbers to the right; where the terminal is too narrow, the widest columns are cut.
fn render(head: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let count = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = head.iter().map(|h| count(h)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(count(cell));
        }
    }
    let gaps = 2 * widths.len().saturating_sub(1);
    while let Some(most) = width
        && widths.iter().sum::<usize>() + gaps > most
    {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROW => *widest -= 1,
            _ => break,
        }
    }
    let right: Vec<bool> = (0..head.len())
        .map(|column| head[column] != "VE" && rows.iter().all(|row| row.get(column).is_some_and(|c| is_number(c))))
        .collect();
    let line = |cells: &[&str]| {
        let mut out = String::new();
        for (column, ((cell, width), right)) in cells.iter().zip(&widths).zip(&right).enumerate() {
            let cell: String = match count(cell) > *width {
                true => cell.chars().take(width - 1).chain(['…']).collect(),
                false => (*cell).to_owned(),
            };
            let pad = " ".repeat(width - count(&cell));
            let gap = if column == 0 { "" } else { "  " };
            out += gap;
            out += &if *right { pad + &cell } else { cell + &pad };
        }
        out.trim_end().to_owned() + "\n"
    };
    let mut out = line(head);
    for row in rows {
        out += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    out
}

/// A count, a size, or none of these.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_suffix(|c: char| c.is_ascii_uppercase()).unwrap_or(cell);
    let number =
        digits.starts_with(|c: char| c.is_ascii_digit()) && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    number || cell == "-" || cell == "none"
}

/// Names and values, one a line.
pub fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        vec![
            vec!["0000002A".into(), "12.0K".into(), "/srv/a/long/way/down".into()],
            vec!["00000001".into(), "-".into(), "/".into()],
        ]
    }

    #[test]
    fn a_table_aligns() {
        let text = render(&["VE", "USED", "DIR"], &rows(), None);
        assert_eq!(text, "VE         USED  DIR\n0000002A  12.0K  /srv/a/long/way/down\n00000001      -  /\n");
    }

    #[test]
    fn a_table_fits_the_terminal() {
        for width in [30, 34, 36] {
            let text = render(&["VE", "USED", "DIR"], &rows(), Some(width));
            assert!(text.lines().all(|l| l.chars().count() <= width), "{text}");
            assert!(text.contains('…') == (width < 37));
        }
        assert!(
            render(&["VE", "USED", "DIR"], &rows(), Some(5)).lines().count() == 3,
            "too narrow for anything: still printed"
        );
    }

    #[test]
    fn fields_align() {
        assert_eq!(fields(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }
}
