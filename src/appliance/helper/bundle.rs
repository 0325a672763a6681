//! The support bundle: texts in an archive (ustar, POSIX.1-2017, `pax`, section "ustar Interchange Format") packed with
//! zstd, without secrets.
//!
//! What goes in was chosen so that no secret is in it: no file of the vault, no certificate's key, no token. Logs are written
//! by others, so each line is looked at all the same, and what looks like a secret is taken out: keys in PEM, landfall's
//! tokens, what stands behind `Bearer`, `password`, `secret` and the like, and passwords in addresses. Deliberately absent:
//! certainty. A secret without any such sign is not known for one.

use landfall_image::{Error, Result};
use serde::Serialize;
use std::io::{self, Write};

/// Bytes of one text: the newest part of it is kept.
const TEXT_AT_MOST: usize = 16 << 20;
const BLOCK: usize = 512;
const OUT: &str = "[left out]";

/// A bundle under way.
pub(super) struct Bundle<W: Write> {
    to: zstd::stream::write::Encoder<'static, W>,
}

fn cannot(error: io::Error) -> Error {
    Error::io("the support bundle cannot be written", error)
}

impl<W: Write> Bundle<W> {
    pub fn new(to: W) -> Result<Bundle<W>> {
        Ok(Bundle { to: zstd::stream::write::Encoder::new(to, 3).map_err(cannot)? })
    }

    /// Adds a document as JSON.
    pub fn document(&mut self, name: &str, document: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec_pretty(document)
            .map_err(|error| Error::refused(format!("{name} cannot be written as JSON: {error}")))?;
        self.add(name, &text)
    }

    /// Adds a text without its secrets.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let start = bytes.len().saturating_sub(TEXT_AT_MOST);
        let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
        // The half line at a cut may be half a secret.
        let text = match start {
            0 => &*text,
            _ => text.split_once('\n').map_or("", |(_, rest)| rest),
        };
        let text = without_secrets(text);
        self.to.write_all(&header(name, text.len())?).map_err(cannot)?;
        self.to.write_all(text.as_bytes()).map_err(cannot)?;
        let rest = text.len().next_multiple_of(BLOCK) - text.len();
        self.to.write_all(&[0; BLOCK][..rest]).map_err(cannot)
    }

    /// Ends it.
    pub fn finish(mut self) -> Result<W> {
        self.to.write_all(&[0; 2 * BLOCK]).map_err(cannot)?;
        self.to.finish().map_err(cannot)
    }
}

/// The header of a file in `landfall-support/`.
fn header(name: &str, len: usize) -> Result<[u8; BLOCK]> {
    let path = format!("landfall-support/{name}");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if path.len() > 99 || !path.bytes().all(is_plain) || path.contains("..") {
        return Err(Error::refused(format!("{name:?} cannot be the name of a file in the support bundle")));
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(room) = block.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    };
    put(0, path.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{len:011o}\0").as_bytes());
    let now = crate::moment::Moment::now().0 / 1000;
    put(136, format!("{now:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(room) = block.get_mut(148..156) {
        room.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    Ok(block)
}

/// Words before a value that nobody else may know.
const BEFORE: [&str; 8] =
    ["password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "authorization"];

/// The text without what looks like a secret.
fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_key = false;
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        // A log may have the whole key in one line, its line breaks written out.
        let begins = body.contains("-----BEGIN") && body.contains("PRIVATE KEY");
        let ends = body.contains("-----END");
        if begins || is_key {
            if begins {
                out.push_str("[a private key was left out]");
                out.push_str(end);
            }
            is_key = !ends;
            continue;
        }
        out.push_str(&line_without_secrets(body));
        out.push_str(end);
    }
    out
}

fn line_without_secrets(line: &str) -> String {
    let mut line = tokens(line);
    for word in BEFORE {
        line = behind(&line, word);
    }
    line = behind_bearer(&line);
    in_addresses(&line)
}

/// `lf_` and hexadecimal digits.
fn tokens(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("lf_") {
        let (before, found) = rest.split_at(at);
        let digits = found.get(3..).unwrap_or("").bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(before);
        let taken = 3 + digits;
        out.push_str(if digits >= 8 { OUT } else { found.get(..taken).unwrap_or("") });
        rest = found.get(taken..).unwrap_or("");
    }
    out + rest
}

/// The value behind `word`, and `=` or `:`, up to a blank, or in quotes.
fn behind(line: &str, word: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut out = String::new();
    let mut at = 0;
    while let Some(found) =
        lower.get(at..).and_then(|rest| rest.find(word)).map(|found| at + found + word.len())
    {
        out.push_str(line.get(at..found).unwrap_or(""));
        at = found;
        let rest = line.get(at..).unwrap_or("");
        // "password": "…", password=…, secret_key: …
        let name = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let sign = rest.get(name..).unwrap_or("").trim_start_matches(['"', '\'', '\\']);
        let value = sign.trim_start();
        if !value.starts_with(['=', ':']) {
            continue;
        }
        let value = value.trim_start_matches(['=', ':']).trim_start();
        let start = line.len() - value.len();
        let quote = value.chars().next().filter(|first| ['"', '\''].contains(first));
        let length = match quote {
            Some(quote) => {
                value.get(1..).and_then(|inner| inner.find(quote)).map_or(value.len(), |end| end + 2)
            }
            // Authorization: Basic …
            None if word == "authorization" => value.len(),
            None => value.find([' ', '\t', ',', ';', '&', '}']).unwrap_or(value.len()),
        };
        out.push_str(line.get(at..start).unwrap_or(""));
        out.push_str(OUT);
        at = start + length;
    }
    out + line.get(at..).unwrap_or("")
}

fn behind_bearer(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let Some(at) = lower.find("bearer ").map(|at| at + "bearer ".len()) else { return line.to_owned() };
    let value = line.get(at..).unwrap_or("");
    let length = value.find([' ', '\t', '"', '\'']).unwrap_or(value.len());
    format!("{}{OUT}{}", line.get(..at).unwrap_or(""), value.get(length..).unwrap_or(""))
}

/// `https://user:password@host`
fn in_addresses(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://").map(|at| at + 3) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let host = found.find(['/', ' ', '\t', '"', '\'']).unwrap_or(found.len());
        let authority = found.get(..host).unwrap_or("");
        rest = found;
        if let Some((user, _)) = authority.rsplit_once('@')
            && let Some((name, _)) = user.split_once(':')
        {
            out.push_str(&format!("{name}:{OUT}"));
            rest = found.get(user.len()..).unwrap_or("");
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_looks_like_a_secret_is_left_out() {
        let token = format!("lf_{}", "0123456789abcdef".repeat(4));
        for (line, wanted) in [
            (format!("admin {token} made"), "admin [left out] made"),
            (format!("Authorization: Bearer {token}"), "Authorization: [left out]"),
            ("x Bearer abc.def-1 y".to_owned(), "x Bearer [left out] y"),
            ("password=hunter2 user=a".to_owned(), "password=[left out] user=a"),
            ("\"Password\": \"hunter2 x\", \"a\": 1".to_owned(), "\"Password\": [left out], \"a\": 1"),
            ("client_secret_key : hunter2".to_owned(), "client_secret_key : [left out]"),
            ("https://me:hunter2@host/x".to_owned(), "https://me:[left out]@host/x"),
            ("see ftp://h and https://a:hunter2@b@c".to_owned(), "see ftp://h and https://a:[left out]@c"),
            ("the token was taken: by nobody; lf_1".to_owned(), "the token was taken: by nobody; lf_1"),
            ("no password is set".to_owned(), "no password is set"),
        ] {
            assert_eq!(line_without_secrets(&line), wanted);
        }
        let key = "a\n x[1]: -----BEGIN EC PRIVATE KEY-----\n x[1]: aHVudGVyMg==\n x[1]: -----END EC PRIVATE KEY-----\nb\n\
                   c -----BEGIN PRIVATE KEY-----\\nhunter2\\n-----END PRIVATE KEY----- d\n-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n\
                   -----BEGIN PRIVATE KEY-----\nhunter2 is cut";
        assert_eq!(
            without_secrets(key),
            "a\n[a private key was left out]\nb\n[a private key was left out]\n-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n[a private key was left out]\n"
        );
    }

    #[test]
    fn other_programs_unpack_it() {
        let mut bundle = Bundle::new(Vec::new()).unwrap();
        bundle.document("status.json", &vec![1, 2]).unwrap();
        bundle.add("journal/boot-0.txt", "ä\n".repeat(300).as_bytes()).unwrap();
        bundle.add("empty", b"").unwrap();
        let long = format!("first half\n{}", "0123456789\n".repeat(TEXT_AT_MOST / 11));
        bundle.add("long", long.as_bytes()).unwrap();
        for name in ["../x", "a b", &"x".repeat(100)] {
            assert!(bundle.add(name, b"").is_err(), "{name}");
        }
        let packed = bundle.finish().unwrap();
        let archive = zstd::decode_all(packed.as_slice()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tar = Command::new("tar").arg("-x").current_dir(folder.path()).stdin(Stdio::piped()).spawn();
        let Ok(mut tar) = tar else {
            eprintln!("SKIPPED: tar is not here to unpack a support bundle");
            return;
        };
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(tar.wait().unwrap().success());
        let read =
            |name: &str| std::fs::read_to_string(folder.path().join("landfall-support").join(name)).unwrap();
        assert_eq!(read("status.json"), "[\n  1,\n  2\n]");
        assert_eq!(read("journal/boot-0.txt"), "ä\n".repeat(300));
        assert_eq!(read("empty"), "");
        assert!(
            read("long").len() <= TEXT_AT_MOST
                && read("long").starts_with("0123456789\n")
                && !read("long").contains("half")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(password|token|lf_|bearer |://|@|:|=|\"|'|[a-f0-9]{9}|-----BEGIN|-----END|PRIVATE KEY|é|İ| |\n){0,30}") {
            let once = without_secrets(&text);
            prop_assert!(once.lines().count() <= text.lines().count());
        }
    }
}
