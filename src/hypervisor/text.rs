//! Text in other languages: words of a shell and of PowerShell, templates, names.

/// `text` as one word of a POSIX shell.
pub fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// [`shell`], without quotes where none are needed: for commands that people read and copy.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:,@%=".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => shell(text),
    }
}

/// `text` as a literal string of PowerShell, in which nothing is expanded. PowerShell ends such a string at typographic
/// quotes, too (its language specification, section 2.3.5.2), so that they are doubled like the plain one.
pub fn powershell(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for letter in text.chars() {
        if matches!(letter, '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}') {
            out.push(letter);
        }
        out.push(letter);
    }
    out.push('\'');
    out
}

/// `template` with its marks replaced, in one pass: a mark inside of a value is no mark. A machine called `@FOLDER@`
/// would else break out of its quotes, in a script that root runs.
pub fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let next = |rest: &str| {
        let found = values.iter().filter_map(|(mark, value)| Some((rest.find(mark)?, mark.len(), value)));
        found.min_by_key(|(at, ..)| *at)
    };
    while let Some((at, len, value)) = next(rest) {
        out.push_str(&rest[..at]);
        out.push_str(value);
        rest = &rest[at + len..];
    }
    out + rest
}

/// [`fill`] for a script of a shell: `@STOP@` becomes the function by which each of ours ends with a word and a hint.
pub fn shell_script(template: &str, values: &[(&str, String)]) -> String {
    let mut all = vec![("@STOP@", include_str!("stop.sh").to_owned())];
    all.extend_from_slice(values);
    fill(template, &all)
}

/// `text` for a comment of a script: on one line, without what steers a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        assert_eq!(shell("it's $(x) `y`"), r"'it'\''s $(x) `y`'");
        assert_eq!(shell_word("/out/web01"), "/out/web01");
        assert_eq!(shell_word("/out/web 01"), "'/out/web 01'");
        assert_eq!(shell_word("/out/$(x)'"), r"'/out/$(x)'\'''");
        for quote in ['\'', '\u{2018}', '\u{2019}', '\u{201a}', '\u{201b}'] {
            assert_eq!(powershell(&format!("a{quote}$(x)")), format!("'a{quote}{quote}$(x)'"));
        }
        assert_eq!(one_line("a\nrm -rf /\u{1b}"), "a rm -rf / ");
    }

    #[test]
    fn a_mark_in_a_value_is_no_mark() {
        let values = [("@A@", "@B@".to_owned()), ("@B@", "b".to_owned())];
        assert_eq!(fill("@A@ and @B@", &values), "@B@ and b");
    }
}
