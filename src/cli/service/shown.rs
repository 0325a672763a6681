//! Tables and times for people, in lines of 100 columns.

use crate::moment::Moment;
use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

/// Columns of a line.
pub const WIDTH: usize = 100;

/// How a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table: heads and sides, then rows. A first cell that is wider than `first_at_most` stands in a line of its own, so that the others stay where
/// they are.
pub fn table<const N: usize>(heads: [(&str, Side); N], rows: &[[String; N]], first_at_most: usize) -> String {
    let width = |text: &str| text.width();
    let mut widths = heads.map(|(head, _)| width(head));
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let is_alone = at == 0 && width(cell) > first_at_most;
            widths[at] = widths[at].max(if is_alone { 0 } else { width(cell) });
        }
    }
    let mut out = String::new();
    let line = |cells: [&str; N], out: &mut String| {
        let mut text = String::new();
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                text.push_str("  ");
            }
            if at == 0 && width(cell) > widths[0] {
                let _ = writeln!(out, "{cell}");
                text.push_str(&" ".repeat(widths[0]));
                continue;
            }
            let pad = " ".repeat(widths[at].saturating_sub(width(cell)));
            match heads[at].1 {
                Side::Left => text.push_str(&format!("{cell}{pad}")),
                Side::Right => text.push_str(&format!("{pad}{cell}")),
            }
        }
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(heads.map(|(head, _)| head), &mut out);
    for row in rows {
        line(std::array::from_fn(|at| row[at].as_str()), &mut out);
    }
    out
}

/// A span of time in about four letters: `3.1 s`, `12 min`, `5.2 h`, `12 d`.
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 99.95 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min", s / 60.0),
        s if s < 48.0 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// As a target is written: whole seconds, minutes or hours where it is some.
pub fn whole_span(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 || s % 60.0 != 0.0 => format!("{s:.0} s"),
        s if s < 3600.0 || s % 3600.0 != 0.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}

/// From a moment to another.
pub fn between(earlier: Moment, later: Moment) -> String {
    span(later.since(earlier).as_secs_f64())
}

/// A moment without its seconds and zone: `2026-11-29 14:03`.
pub fn minute(moment: Moment) -> String {
    moment.to_string().chars().take(16).collect()
}

/// `text` in lines of [`WIDTH`], each with `indent` before it; the first after `first`, which takes the place of its indent.
pub fn wrapped(first: &str, indent: usize, text: &str) -> String {
    let mut out = String::new();
    let mut line = format!("{first:<indent$}");
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.width() + 1 + word.width() > WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
    out
}

/// `1 point`, `2 points`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_one_another() {
        let rows = [
            ["a".to_owned(), "1".to_owned(), "x".to_owned()],
            ["日本".to_owned(), "22".to_owned(), String::new()],
            ["a very long name of a machine".to_owned(), "3".to_owned(), "y".to_owned()],
        ];
        let text = table([("NAME", Side::Left), ("NO", Side::Right), ("WHAT", Side::Left)], &rows, 10);
        assert_eq!(
            text,
            "NAME  NO  WHAT\na      1  x\n日本  22\na very long name of a machine\n       3  y\n"
        );
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (0.04, "0.0 s"),
            (99.9, "99.9 s"),
            (99.96, "2 min"),
            (3599.0, "60 min"),
            (5400.0, "1.5 h"),
            (1e6, "12 d"),
        ] {
            assert_eq!(span(seconds), text);
        }
        for (seconds, text) in [(15.0, "15 s"), (90.0, "90 s"), (120.0, "2 min"), (7200.0, "2 h")] {
            assert_eq!(whole_span(seconds), text);
        }
        assert_eq!(wrapped("fix: ", 5, "a b"), "fix: a b\n");
        let long = wrapped("", 4, &"word ".repeat(40));
        assert!(long.lines().all(|line| line.width() <= WIDTH && line.starts_with("    word")), "{long}");
    }
}
