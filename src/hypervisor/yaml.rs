//! YAML by way of JSON, which is a part of it (YAML 1.2, section 1.3): every string is quoted, so that no name becomes a number, a
//! date, a key or an alias.

use serde_json::Value;

/// `value` as a document. What YAML does not let stand in a text as it is (its section 5.1) is escaped; JSON alone lets
/// some of it stand.
pub fn document(value: &Value) -> String {
    let text = format!("{value:#}\n");
    let is_printable = |letter: char| {
        matches!(letter, '\n' | '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
            || letter > '\u{ffff}'
    };
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match is_printable(letter) && !matches!(letter, '\u{2028}' | '\u{2029}') {
            true => out.push(letter),
            // All of these are in the first 65,536 code points.
            false => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
        }
    }
    out
}

/// Several documents in one file.
pub fn documents(values: &[Value]) -> String {
    values.iter().map(|value| format!("---\n{}", document(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_does_not_print_is_escaped_and_reads_the_same() {
        let text = "a\u{7f}\u{85}\u{9f}\u{2028}\u{feff}\u{ffff}\u{1f600}ä\"\\\n\u{1}: - # yes";
        let value = serde_json::json!({ "a": text });
        let written = document(&value);
        assert!(written.contains("\\u007f\\u0085\\u009f\\u2028\\ufeff\\uffff\u{1f600}ä"), "{written}");
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value);
        assert_eq!(documents(&[value.clone(), value]).matches("---\n").count(), 2);
    }
}
