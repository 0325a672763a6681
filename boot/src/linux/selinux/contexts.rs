//! Which context the policy has for a path: file_contexts(5), read and matched as libselinux's `selabel_lookup` does it.
//!
//! ```text
//! /etc/modprobe\.d(/.*)?      --      system_u:object_r:modules_conf_t:s0
//! expression of the whole path  kind  context, or <<none>>
//! ```
//!
//! The last line that fits wins, and lines without any special character win over all others. Expressions are PCRE;
//! one that is more than a regular expression cannot be compiled here, and then what it might fit is unknown.

use crate::Result;
use crate::tree::{GuestTree, GuestTreeExt};
use regex::bytes::{Regex, RegexBuilder};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The policy of Fedora has 6,500 lines.
const LINES_AT_MOST: usize = 1 << 16;

/// A path has up to 4096 bytes, an expression of one hardly more.
const EXPRESSION_AT_MOST: usize = 4096;

/// Memory of one compiled expression; real ones take some KiB. It also bounds the time that compiling takes.
const COMPILED_AT_MOST: usize = 256 << 10;

/// Expressions compiled for one guest: some fifty for each path, whose fixed beginning fits it.
const COMPILATIONS_AT_MOST: usize = 4096;

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
}

/// What the policy says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Context(String),
    /// Nothing, or that it is to be left alone.
    Nothing,
    /// It cannot be told.
    Unknown,
}

/// The lines of a policy that can matter.
pub(super) struct Contexts {
    /// In the order of libselinux: the last that fits wins.
    lines: Vec<Line>,
    /// Beginnings of paths that are taken for others, those of the distribution and the administrator's own; the last wins.
    distribution: Vec<(String, String)>,
    own: Vec<(String, String)>,
    compiled: RefCell<BTreeMap<usize, Option<Regex>>>,
}

struct Line {
    expression: String,
    /// What a fitting path begins with.
    prefix: String,
    kind: Option<Kind>,
    context: String,
}

impl Contexts {
    /// Reads the policy's files; `None` where it has none, or more in them than any policy.
    pub(super) fn read(tree: &dyn GuestTree, folder: &str) -> Result<Option<Self>> {
        let main = format!("{folder}/file_contexts");
        let Some(mut text) = tree.read_text(&main)? else { return Ok(None) };
        for end in ["homedirs", "local"] {
            text.push('\n');
            text.push_str(&tree.read_text(&format!("{main}.{end}"))?.unwrap_or_default());
        }
        let distribution = tree.read_text(&format!("{main}.subs_dist"))?.unwrap_or_default();
        let own = tree.read_text(&format!("{main}.subs"))?.unwrap_or_default();
        Ok(Contexts::parse(&text, &distribution, &own))
    }

    pub(super) fn parse(text: &str, distribution: &str, own: &str) -> Option<Self> {
        let (mut with_patterns, mut exact) = (Vec::new(), Vec::new());
        for (at, line) in text.lines().enumerate() {
            if at >= LINES_AT_MOST {
                return None;
            }
            let mut words = line.split_whitespace();
            let Some(expression) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let (kind, context) = match (words.next(), words.next()) {
                (Some(kind), Some(context)) => (kind, context),
                (Some(context), None) => ("", context),
                _ => continue,
            };
            let kind = match kind {
                "" => None,
                "--" => Some(Kind::File),
                "-d" => Some(Kind::Folder),
                "-l" => Some(Kind::Link),
                // Devices, pipes and sockets: none is ever made.
                _ => continue,
            };
            let (prefix, is_exact) = prefix(expression);
            let line = Line { expression: expression.to_owned(), prefix, kind, context: context.to_owned() };
            if is_exact { exact.push(line) } else { with_patterns.push(line) }
        }
        with_patterns.append(&mut exact);
        Some(Contexts {
            lines: with_patterns,
            distribution: substitutions(distribution),
            own: substitutions(own),
            compiled: RefCell::default(),
        })
    }

    /// The context of a path.
    pub(super) fn find(&self, path: &str, kind: Kind) -> Found {
        let path = substitute(&self.own, path).unwrap_or_else(|| path.to_owned());
        let path = substitute(&self.distribution, &path).unwrap_or(path);
        for (at, line) in self.lines.iter().enumerate().rev() {
            if line.kind.is_some_and(|wanted| wanted != kind) || !path.starts_with(&line.prefix) {
                continue;
            }
            match self.fits(at, line, &path) {
                Some(false) => {}
                Some(true) if line.context == "<<none>>" => return Found::Nothing,
                Some(true) => return Found::Context(line.context.clone()),
                None => return Found::Unknown,
            }
        }
        Found::Nothing
    }

    /// `None` where it cannot be told.
    fn fits(&self, at: usize, line: &Line, path: &str) -> Option<bool> {
        let mut compiled = self.compiled.borrow_mut();
        let is_full = compiled.len() >= COMPILATIONS_AT_MOST;
        let regex = match compiled.entry(at) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(free) => free.insert(compile(&line.expression)),
        };
        regex.as_ref().map(|regex| regex.is_match(path.as_bytes()))
    }
}

fn compile(expression: &str) -> Option<Regex> {
    if expression.len() > EXPRESSION_AT_MOST {
        return None;
    }
    RegexBuilder::new(&format!("^{expression}$"))
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_AT_MOST)
        .build()
        .ok()
}

/// What every path that fits an expression begins with; and whether nothing else in it is special, so that libselinux takes
/// it for one path.
fn prefix(expression: &str) -> (String, bool) {
    let mut prefix = String::new();
    let mut is_open = true;
    let mut is_exact = true;
    let mut depth = 0usize;
    let mut chars = expression.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some(next) if is_open && !next.is_ascii_alphanumeric() => prefix.push(next),
                // `\d` and the like.
                _ => is_open = false,
            },
            '.' | '^' | '$' | '?' | '*' | '+' | '|' | '[' | '(' | '{' => {
                is_exact = false;
                // They make the character before them optional.
                if is_open && matches!(char, '?' | '*' | '{') {
                    prefix.pop();
                }
                is_open = false;
                depth += usize::from(char == '(');
                // Of two whole expressions libselinux compares the first folder alone.
                if char == '|' && depth == 0 {
                    let first = prefix.get(1..).and_then(|rest| rest.find('/')).map_or(0, |at| at + 1);
                    prefix.truncate(first);
                    return (prefix, false);
                }
            }
            ')' => {
                is_open = false;
                depth = depth.saturating_sub(1);
            }
            char if is_open => prefix.push(char),
            _ => {}
        }
    }
    (prefix, is_exact)
}

fn substitutions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().take(LINES_AT_MOST).filter(|line| !line.trim_start().starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

fn substitute(table: &[(String, String)], path: &str) -> Option<String> {
    table.iter().rev().find_map(|(from, to)| {
        let rest = path.strip_prefix(from.as_str())?;
        match (rest.is_empty() || rest.starts_with('/'), to.as_str()) {
            (true, "/") if !rest.is_empty() => Some(rest.to_owned()),
            (true, to) => Some(format!("{to}{rest}")),
            (false, _) => None,
        }
    })
}
