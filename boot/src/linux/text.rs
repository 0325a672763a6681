//! Edits of text files that leave every byte alone which they do not mean: comments, spacing, line endings (`\r\n`
//! too), bytes that are not UTF-8, a missing newline at the end.
//!
//! Every function returns `None` where there is nothing to change, so that a plan for a patched guest is empty.

use std::ops::Range;

/// The lines of a file: body and ending (`\n`, `\r\n`, or nothing at the end of the file).
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let body = line.strip_suffix(b"\n").unwrap_or(line);
        let body = if body.len() < line.len() { body.strip_suffix(b"\r").unwrap_or(body) } else { body };
        line.split_at(body.len())
    })
}

/// The file with every line's body replaced for which `edit` returns a new one.
pub fn map_lines(bytes: &[u8], mut edit: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut new = Vec::with_capacity(bytes.len().saturating_add(64));
    for (body, ending) in lines(bytes) {
        match edit(body) {
            Some(replacement) => new.extend_from_slice(&replacement),
            None => new.extend_from_slice(body),
        }
        new.extend_from_slice(ending);
    }
    (new != bytes).then_some(new)
}

/// The file with more lines at its end, in its own line-ending style.
pub fn append_lines<S: AsRef<str>>(bytes: &[u8], more: &[S]) -> Option<Vec<u8>> {
    if more.is_empty() {
        return None;
    }
    let ending: &[u8] = match lines(bytes).next() {
        Some((_, b"\r\n")) => b"\r\n",
        _ => b"\n",
    };
    let mut new = bytes.to_vec();
    if !new.is_empty() && !new.ends_with(b"\n") {
        new.extend_from_slice(ending);
    }
    for line in more {
        new.extend_from_slice(line.as_ref().as_bytes());
        new.extend_from_slice(ending);
    }
    Some(new)
}

/// Where the words of a line are; blanks and tabs part them.
pub fn words(body: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, byte) in body.iter().enumerate() {
        match (is_blank(*byte), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                found.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        found.push(from..body.len());
    }
    found
}

/// The `n`th word (from 0) of a line that is not a comment.
pub fn word(body: &[u8], n: usize) -> Option<&str> {
    let range = words(body).into_iter().nth(n)?;
    std::str::from_utf8(body.get(range)?).ok()
}

/// True for a line of blanks only, and for one that starts with `#` after blanks.
pub fn is_comment(body: &[u8]) -> bool {
    body.iter().find(|byte| !is_blank(**byte)).is_none_or(|byte| *byte == b'#')
}

/// The line with one range of it replaced.
pub fn replace(body: &[u8], range: Range<usize>, by: &[u8]) -> Vec<u8> {
    let before = body.get(..range.start).unwrap_or(body);
    let after = body.get(range.end..).unwrap_or_default();
    [before, by, after].concat()
}

/// The line with the value of `KEY=VALUE` words changed, wherever such a word stands: on a kernel command line, in a
/// shell assignment, inside quotes. `change` gets key and bare value; the quotes stay as they are.
pub fn change_values(
    body: &[u8],
    keys: &[&str],
    mut change: impl FnMut(&str, &str) -> Option<String>,
) -> Option<Vec<u8>> {
    let mut new = Vec::new();
    let mut copied = 0;
    for (key, range) in values(body, keys) {
        // Inside of a value that was replaced there is nothing left to look at.
        if range.start < copied {
            continue;
        }
        let Some(value) = body.get(range.clone()).and_then(|value| std::str::from_utf8(value).ok()) else {
            continue;
        };
        if let Some(by) = change(key, value) {
            new.extend_from_slice(body.get(copied..range.start).unwrap_or_default());
            new.extend_from_slice(by.as_bytes());
            copied = range.end;
        }
    }
    if copied == 0 {
        return None;
    }
    new.extend_from_slice(body.get(copied..).unwrap_or_default());
    (new != body).then_some(new)
}

/// Where the values of `KEY=VALUE` words lie, in order, with their key.
pub fn values<'k>(body: &[u8], keys: &[&'k str]) -> Vec<(&'k str, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let starts = at == 0
            || body.get(at.wrapping_sub(1)).is_some_and(|byte| is_blank(*byte) || b"\"'=;".contains(byte));
        let key = keys.iter().find(|key| {
            starts
                && body.get(at..).is_some_and(|rest| {
                    rest.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
                })
        });
        let Some(key) = key else {
            at += 1;
            continue;
        };
        let mut start = at + key.len() + 1;
        let quote = body.get(start).copied().filter(|byte| b"\"'".contains(byte));
        let ends = |byte: &u8| match quote {
            Some(quote) => *byte == quote,
            None => is_blank(*byte) || b"\"';}\\".contains(byte),
        };
        start += usize::from(quote.is_some());
        let rest = body.get(start..).unwrap_or_default();
        let end = start + rest.iter().position(ends).unwrap_or(rest.len());
        found.push((*key, start..end));
        // A quoted value may hold words of its own (`GRUB_CMDLINE_LINUX="root=…"`): go on inside.
        at = start;
    }
    found
}

/// The bare value of a shell-style assignment `KEY=VALUE` on a line of its own; the last one counts.
pub fn assignment<'a>(bytes: &'a [u8], key: &str) -> Option<&'a str> {
    lines(bytes)
        .filter_map(|(body, _)| {
            let body = body.trim_ascii();
            let body = body.strip_prefix(b"export ").map_or(body, |rest| rest.trim_ascii());
            if !body.strip_prefix(key.as_bytes())?.starts_with(b"=") {
                return None;
            }
            let (_, range) = values(body, &[key]).into_iter().next()?;
            std::str::from_utf8(body.get(range)?).ok()
        })
        .last()
}

/// Shell-style name matching with `*`, `?` and `[…]`, as udev, systemd and ifupdown use it. Never more than
/// pattern length times name length steps.
pub fn glob(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(pattern.get(p..).unwrap_or_default(), name[n]),
            Some(other) if *other == name[n] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(step), _) => {
                p += step;
                n += 1;
            }
            (None, Some((star_p, star_n))) => {
                star = Some((star_p, star_n + 1));
                p = star_p + 1;
                n = star_n + 1;
            }
            (None, None) => return false,
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|char| *char == '*'))
}

/// Length of the bracket expression at the start of `pattern`, if it matches `char`.
fn class(pattern: &[char], char: char) -> Option<usize> {
    let close = pattern.iter().skip(2).position(|char| *char == ']')? + 2;
    let inner = pattern.get(1..close)?;
    let (negated, inner) = match inner.first() {
        Some('!' | '^') => (true, inner.get(1..)?),
        _ => (false, inner),
    };
    let mut hit = false;
    let mut at = 0;
    while let Some(low) = inner.get(at) {
        match (inner.get(at + 1), inner.get(at + 2)) {
            (Some('-'), Some(high)) => {
                hit |= (*low..=*high).contains(&char);
                at += 3;
            }
            _ => {
                hit |= *low == char;
                at += 1;
            }
        }
    }
    (hit != negated).then_some(close + 1)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn endings_and_strange_bytes_survive() {
        let file = b"a 1\r\n\xff\xfe b\n\n#c\rd\nlast";
        let new = map_lines(file, |body| (body == b"a 1").then(|| b"A 1".to_vec())).unwrap();
        assert_eq!(new, b"A 1\r\n\xff\xfe b\n\n#c\rd\nlast");
        assert_eq!(map_lines(file, |_| None), None);
        assert_eq!(map_lines(file, |body| Some(body.to_vec())), None, "no change is no edit");
    }

    #[test]
    fn lines_are_added_in_the_style_of_the_file() {
        assert_eq!(append_lines(b"a\r\nb", &["c"]).unwrap(), b"a\r\nb\r\nc\r\n");
        assert_eq!(append_lines(b"a", &["c"]).unwrap(), b"a\nc\n");
        assert_eq!(append_lines(b"", &["c"]).unwrap(), b"c\n");
        assert_eq!(append_lines::<&str>(b"a", &[]), None);
    }

    #[test]
    fn values_are_found_in_quotes_and_out_of_them() {
        let change = |line: &str| {
            let new = change_values(line.as_bytes(), &["root", "resume"], |_, value| {
                value.starts_with("/dev/sd").then(|| "UUID=x".to_owned())
            });
            new.map(|new| String::from_utf8(new).unwrap())
        };
        assert_eq!(
            change("\tlinux\t/vmlinuz root=/dev/sda1 ro\tresume=/dev/sda5  quiet").unwrap(),
            "\tlinux\t/vmlinuz root=UUID=x ro\tresume=UUID=x  quiet"
        );
        assert_eq!(
            change("GRUB_CMDLINE_LINUX=\"root=/dev/sda1\"").unwrap(),
            "GRUB_CMDLINE_LINUX=\"root=UUID=x\""
        );
        assert_eq!(change("GRUB_CMDLINE_LINUX=root=/dev/sda1").unwrap(), "GRUB_CMDLINE_LINUX=root=UUID=x");
        assert_eq!(change("root=\"/dev/sda1\" x").unwrap(), "root=\"UUID=x\" x");
        assert_eq!(change("set root='hd0,msdos1'"), None);
        assert_eq!(change("nfsroot=/dev/sda1 xroot=/dev/sda1"), None);
        assert_eq!(change("root=UUID=1"), None);
        assert_eq!(change("root=/dev/sda1=root=/dev/sda1 x").unwrap(), "root=UUID=x x");
    }

    #[test]
    fn the_last_assignment_counts() {
        let file = b"#A=0\nA=1\n export A=\"two words\" # x\nAB=3\n";
        assert_eq!(assignment(file, "A"), Some("two words"));
        assert_eq!(assignment(file, "B"), None);
        assert_eq!(assignment(b"A=\xff\n", "A"), None);
    }

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("en*", "ens192", true),
            ("e*2", "ens192", true),
            ("en?192", "ens192", true),
            ("en[r-t]1*", "ens192", true),
            ("en[!r-t]1*", "ens192", false),
            ("eth*", "ens192", false),
            ("ens192", "ens1920", false),
            ("[", "[", false),
            ("*", "", true),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_identity_is_no_edit(file: Vec<u8>, pattern: String, name: String) {
            prop_assert_eq!(map_lines(&file, |body| change_values(body, &["root"], |_, v| Some(v.into()))), None);
            let joined: Vec<u8> = lines(&file).flat_map(|(a, b)| [a, b].concat()).collect();
            prop_assert_eq!(&joined, &file);
            glob(&pattern, &name);
        }
        #[test]
        fn values_lie_inside(line in "[a= \"'r\\\\;}]{0,40}") {
            for (_, range) in values(line.as_bytes(), &["r", "a"]) {
                prop_assert!(line.get(range).is_some());
            }
        }
    }
}
