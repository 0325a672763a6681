//! Text that can be shown on any terminal, in lines.

/// `text` without what could steer a terminal or look like something else: names in it come from disks, machines and guests. What
/// the kernel's terminal has no picture of is a question mark; everything else has the width of one letter.
pub fn clean(text: &str) -> String {
    let shown = |letter: char| match letter {
        ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}' => letter,
        '\t' => ' ',
        letter if letter.is_control() => '.',
        '\u{2013}' | '\u{2014}' => '-',
        _ => '?',
    };
    text.chars().map(shown).collect()
}

/// `text` behind `label`, in lines of at most `width` letters that begin at `indent`; broken at blanks, and within words that are longer.
pub fn wrapped(label: &str, indent: usize, text: &str, width: usize) -> Vec<String> {
    let indent = indent.min(width.saturating_sub(8));
    let room = width.saturating_sub(indent).max(8);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in clean(text).split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + rest.len() > room {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        while rest.len() > room {
            let after = rest.split_off(room);
            lines.push(rest.iter().collect());
            rest = after;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        length += rest.len();
        line.extend(rest);
    }
    lines.push(line);
    let mut label = clean(label);
    if label.chars().count() >= indent && !label.is_empty() && indent > 0 {
        label.push(' ');
    }
    let begin = |number| if number == 0 { format!("{label:<indent$}") } else { " ".repeat(indent) };
    lines.iter().enumerate().map(|(number, line)| format!("{}{line}", begin(number))).collect()
}

/// `text` in one line of at most `width` letters.
pub fn cut(text: &str, width: usize) -> String {
    let text = clean(text);
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(3)).chain("...".chars()).take(width).collect(),
        false => text,
    }
}

/// `1 machine`, `2 machines`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_taken_out() {
        assert_eq!(clean("a\u{1b}[2J\r\n\u{9b}m\u{7f}b"), "a.[2J...m.b");
        // Right to left, of no width, of double width.
        assert_eq!(clean("x\u{202e}y\u{200b}z\u{6f22}"), "x?y?z?");
        assert_eq!(clean("Gr\u{fc}n"), "Gr\u{fc}n");
    }

    #[test]
    fn lines_are_broken_and_lose_nothing() {
        assert_eq!(wrapped("a", 4, "one two three", 12), ["a   one two", "    three"]);
        assert_eq!(wrapped("", 0, "abcdefghijkl", 8), ["abcdefgh", "ijkl"]);
        assert_eq!(wrapped("x", 2, "", 20), ["x "]);
        for width in 0..20 {
            assert!(!wrapped("label", 12, "some words of any kind", width).is_empty());
            assert!(cut("some words", width).chars().count() <= width);
        }
        assert_eq!(cut("abcdef", 5), "ab...");
    }
}
