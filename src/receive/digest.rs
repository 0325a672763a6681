//! Digests that come beside what is received, and what came of comparing them.
//!
//! Source: the output of GNU coreutils' `sha256sum` ("cksum output modes" in its manual): `HEX  NAME` or `HEX *NAME` on each line; a line
//! that begins with a backslash has `\\`, `\n` and `\r` in its name for backslash, line feed and carriage return.

use landfall_image::{Error, FileOffset, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// SHA-256 of a file, printed as 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sum([u8; 32]);

impl Sum {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Sum {
        Sum(Sha256::digest(bytes).into())
    }

    /// The value of a hasher.
    pub fn finish(hasher: Sha256) -> Sum {
        Sum(hasher.finalize().into())
    }

    /// Of 64 hexadecimal digits.
    ///
    /// # Errors
    /// Refused for anything else.
    pub fn parse(text: &str) -> Result<Sum> {
        let digits = text.as_bytes();
        let digit =
            |at: usize| char::from(*digits.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut sum = [0; 32];
        let is_one = digits.len() == 64
            && sum.iter_mut().enumerate().all(|(at, byte)| match (digit(2 * at), digit(2 * at + 1)) {
                (Some(high), Some(low)) => {
                    *byte = high << 4 | low;
                    true
                }
                _ => false,
            });
        match is_one {
            true => Ok(Sum(sum)),
            false => {
                let shown: String = text.chars().filter(|letter| !letter.is_control()).take(80).collect();
                Err(Error::refused(format!("{shown:?} is no SHA-256: 64 hexadecimal digits are"))
                    .hint("make it with sha256sum FILE > FILE.sha256"))
            }
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Sum {
    type Error = Error;

    fn try_from(text: String) -> Result<Sum> {
        Sum::parse(&text)
    }
}

impl From<Sum> for String {
    fn from(sum: Sum) -> String {
        sum.to_string()
    }
}

impl schemars::JsonSchema for Sum {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sha256".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }
}

/// What came of comparing a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DigestVerdict")]
pub enum Verdict {
    /// The digest that came beside it is that of what was received.
    Matched,
    /// It is not: something was changed on the way. Nothing of it is applied.
    Differed,
    /// No digest came: whether it is what was sent is not known.
    CouldNotRun,
}

impl Verdict {
    /// Of what was found, and what came beside it.
    pub fn of(found: Sum, expected: Option<Sum>) -> Verdict {
        match expected {
            None => Verdict::CouldNotRun,
            Some(expected) if expected == found => Verdict::Matched,
            Some(_) => Verdict::Differed,
        }
    }
}

/// Lines of one file of digests: as many files as a drop may have.
pub const LINES_AT_MOST: usize = 10_000;
/// Bytes of it: each line has a path of up to 4096 bytes, escaped, of which hardly any is longer than 100.
pub const FILE_AT_MOST: u64 = 4 << 20;

/// Reads a file as `sha256sum` writes it: names with their digests, in their order. A line with nothing but a digest has an empty name.
///
/// # Errors
/// Refused where a line is none, a name comes twice, or there are more than [`LINES_AT_MOST`].
pub fn parse(text: &[u8]) -> Result<Vec<(String, Sum)>> {
    let mut all: Vec<(String, Sum)> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut at = 0_u64;
    for line in text.split(|byte| *byte == b'\n') {
        let here = FileOffset(at);
        at += line.len() as u64 + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let wrong = |says: &str| {
            Error::refused(says.to_owned())
                .at(here)
                .hint("write it with sha256sum: HEX, two blanks, NAME on each line")
        };
        let line = std::str::from_utf8(line).map_err(|_| wrong("a line is not of UTF-8"))?;
        let (is_escaped, line) = line.strip_prefix('\\').map_or((false, line), |rest| (true, rest));
        let (sum, name) = match line.split_once(' ') {
            Some((sum, rest)) => {
                let name = rest
                    .strip_prefix([' ', '*'])
                    .ok_or_else(|| wrong("a digest and its name have one blank between them"))?;
                (
                    sum,
                    if is_escaped {
                        unescaped(name).ok_or_else(|| wrong("a name is not escaped as it says"))?
                    } else {
                        name.to_owned()
                    },
                )
            }
            None => (line, String::new()),
        };
        let sum = Sum::parse(sum).map_err(|error| error.at(here))?;
        if !seen.insert(name.clone()) {
            return Err(wrong(&format!("{name:?} has two digests")));
        }
        if all.len() >= LINES_AT_MOST {
            return Err(Error::refused(format!("has more than {LINES_AT_MOST} lines")).at(here));
        }
        all.push((name, sum));
    }
    Ok(all)
}

fn unescaped(name: &str) -> Option<String> {
    let mut out = String::new();
    let mut letters = name.chars();
    while let Some(letter) = letters.next() {
        out.push(match letter {
            '\\' => match letters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

/// The digest of the file `name` in the side file beside it: the one line of that name, or the only line, which may name another (the
/// file was renamed) or nothing.
///
/// # Errors
/// Refused where it is no file of digests, or does not say which of several is meant.
pub fn beside(text: &[u8], name: &str) -> Result<Sum> {
    let all = parse(text)?;
    let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let own: Vec<Sum> = all.iter().filter(|(other, _)| last(other) == name).map(|(_, sum)| *sum).collect();
    match (own.as_slice(), all.as_slice()) {
        ([sum], _) | ([], [(_, sum)]) => Ok(*sum),
        ([], []) => Err(Error::refused("holds no digest").hint(format!("make it with sha256sum {name}"))),
        _ => Err(Error::refused(format!("holds {} digests, and not just one of {name:?}", all.len()))
            .hint("leave the line of that file only")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn digests_are_read_as_sha256sum_writes_them() {
        let (a, b) = (Sum::of(b"a"), Sum::of(b"b"));
        assert_eq!(a.to_string(), "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        let text = format!("{a}  web01.vmdk\r\n{b} *sub/b b\n\\{b}  x\\\\y\\nz\n");
        let wanted =
            [("web01.vmdk", a), ("sub/b b", b), ("x\\y\nz", b)].map(|(name, sum)| (name.to_owned(), sum));
        assert_eq!(parse(text.as_bytes()).unwrap(), wanted);
        assert_eq!(Sum::parse(&a.to_string().to_uppercase()).unwrap(), a);
        for bad in [
            format!("{a} x"),
            format!("{a}0  x"),
            format!("{}  x", &a.to_string()[1..]),
            format!("g{}  x", &a.to_string()[1..]),
            format!("{a}  x\n{b}  x"),
            format!("\\{a}  x\\t"),
            format!("\\{a}  x\\"),
            "hello".to_owned(),
            "SHA256 (x) = 00".to_owned(),
        ] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert!(error.hint_text().is_some(), "{bad}: {error}");
        }
        assert!(parse(b"\xff\xff").is_err());
        let many = |count: usize| -> String { (0..count).map(|n| format!("{a}  {n}\n")).collect() };
        assert_eq!(parse(many(LINES_AT_MOST).as_bytes()).unwrap().len(), LINES_AT_MOST);
        assert!(parse(many(LINES_AT_MOST + 1).as_bytes()).is_err());
    }

    #[test]
    fn a_side_file_says_which_is_meant() {
        let (a, b) = (Sum::of(b"a"), Sum::of(b"b"));
        for (text, sum) in [
            (format!("{a}  db.diff\n"), Some(a)),
            (format!("{a}\n"), Some(a)),
            (format!("{a}  /backup/old-name\n"), Some(a)),
            (format!("{a}  other\n{b}  /backup/db.diff\n"), Some(b)),
            (format!("{a}  one\n{b}  two\n"), None),
            (format!("{a}  x/db.diff\n{b}  y/db.diff\n"), None),
            (String::new(), None),
        ] {
            assert_eq!(beside(text.as_bytes(), "db.diff").ok(), sum, "{text}");
        }
    }

    /// Against the tool itself.
    #[test]
    fn sha256sum_agrees() {
        let run = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut run) = run else {
            eprintln!("SKIPPED: no sha256sum here (Debian: coreutils)");
            return;
        };
        run.stdin.take().unwrap().write_all(b"landfall").unwrap();
        let out = run.wait_with_output().unwrap().stdout;
        assert_eq!(parse(&out).unwrap(), [("-".to_owned(), Sum::of(b"landfall"))]);
    }

    #[test]
    fn three_verdicts() {
        let (a, b) = (Sum::of(b"a"), Sum::of(b"b"));
        assert_eq!(Verdict::of(a, Some(a)), Verdict::Matched);
        assert_eq!(Verdict::of(a, Some(b)), Verdict::Differed);
        assert_eq!(Verdict::of(a, None), Verdict::CouldNotRun);
        assert_eq!(serde_json::to_string(&Verdict::CouldNotRun).unwrap(), "\"could-not-run\"");
    }
}
