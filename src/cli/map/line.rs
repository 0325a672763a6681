//! Lines of a width that a terminal shows: names made harmless, columns, breaks.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that a line has at most.
pub const WIDTH: usize = 100;

/// Letters of one name that are shown: a definition can hold megabytes.
const NAME_AT_MOST: usize = 400;

/// A name from a definition, an image or a guest: what could steer a terminal, break a line or turn its direction is shown
/// as an escape.
pub fn shown(name: &str) -> String {
    let mut out = String::new();
    for (count, letter) in name.chars().enumerate() {
        if count == NAME_AT_MOST {
            out.push('…');
            break;
        }
        match letter {
            '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => {
                out.extend(letter.escape_unicode());
            }
            letter if letter.is_control() => out.extend(letter.escape_default()),
            letter => out.push(letter),
        }
    }
    out
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` and blanks behind it, so that it takes at least `columns`.
pub fn padded(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(blanks))
}

/// The same with the blanks in front.
pub fn right(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(width(text));
    format!("{}{text}", " ".repeat(blanks))
}

/// Lines of at most [`WIDTH`] columns: `first` in front of the first one, `rest` in front of the others. Broken at blanks, and
/// inside of words that are longer than a line. What [`kept`] made stays together.
pub fn wrapped(text: &str, first: &str, rest: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut line = first.to_owned();
    let mut is_bare = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !is_bare && width(&line) + 1 + width(word) > WIDTH {
            out.push(std::mem::replace(&mut line, rest.to_owned()));
            is_bare = true;
        }
        if !is_bare {
            line.push(' ');
        }
        for letter in word.chars() {
            if width(&line) + letter.width().unwrap_or(0) > WIDTH && line.len() > rest.len() {
                out.push(std::mem::replace(&mut line, rest.to_owned()));
            }
            line.push(letter);
        }
        is_bare = false;
    }
    if !is_bare || out.is_empty() {
        out.push(line);
    }
    out.iter().map(|line| line.trim_end().replace(KEPT, " ")).collect()
}

/// A blank at which no line is broken, until it is printed.
const KEPT: char = '\u{a0}';

/// `text` as one word for [`wrapped`].
pub fn kept(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// Rows in columns behind `indent`; the last cell of a row is broken where it does not fit, and all of a row whose other cells
/// do not.
pub fn table(rows: &[Vec<String>], indent: &str) -> Vec<String> {
    /// A row with wider ones has no columns.
    const COLUMN_AT_MOST: usize = 24;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| width(cell)).max().unwrap_or(0).min(COLUMN_AT_MOST)
        })
        .collect();
    let mut out = Vec::new();
    for row in rows {
        let Some((last, cells)) = row.split_last() else { continue };
        if cells.iter().any(|cell| width(cell) > COLUMN_AT_MOST) {
            out.extend(wrapped(&row.join(" "), indent, &format!("{indent}    ")));
            continue;
        }
        let mut line = indent.to_owned();
        for (cell, width) in cells.iter().zip(&widths) {
            line.push_str(&padded(cell, *width));
            line.push_str("  ");
        }
        let rest = " ".repeat(width(&line).min(WIDTH / 2));
        out.extend(wrapped(last, &line, &rest));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_harmless() {
        assert_eq!(shown("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(shown("x\u{202e}fdp.exe"), "x\\u{202e}fdp.exe");
        assert_eq!(shown("Größe 中"), "Größe 中");
        assert!(width(&shown(&"x".repeat(1 << 20))) <= NAME_AT_MOST + 1);
    }

    #[test]
    fn no_line_is_too_long() {
        for text in ["", "a", &"word ".repeat(100), &"x".repeat(1000), &"中".repeat(500), " a  b "] {
            for line in wrapped(text, "  first ", "        ") {
                assert!(width(&line) <= WIDTH, "{line:?}");
            }
            let all: String = wrapped(text, "", "").join(" ");
            assert_eq!(all.replace(' ', ""), text.replace(' ', ""));
        }
        assert_eq!(wrapped("a b", "> ", "  "), ["> a b"]);
        let together = format!("{}, {}", "x".repeat(90), kept("UUID 1234-5678"));
        assert_eq!(
            wrapped(&together, "", "  "),
            [format!("{},", "x".repeat(90)).as_str(), "  UUID 1234-5678"]
        );
        let rows = vec![vec!["a".into(), "x".repeat(300)], vec!["long name".into(), "y".into()]];
        let lines = table(&rows, "  ");
        assert!(lines.iter().all(|line| width(line) <= WIDTH));
        assert_eq!(lines.last().unwrap(), "  long name  y");
    }
}
