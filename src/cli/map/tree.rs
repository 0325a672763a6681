//! A tree of storage as lines: name, size, what it is, what is free, where it is mounted; and what else is known below.

use super::line::{WIDTH, padded, right, width, wrapped};
use landfall_image::Bytes;

/// Something on a disk, and what stands on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name: `disk0p1`.
    pub name: String,
    /// Its size, where it has one.
    pub size: Option<Bytes>,
    /// What it is: `ext4`.
    pub what: String,
    /// What is free in it.
    pub free: Option<Bytes>,
    /// Where it is mounted.
    pub at: String,
    /// What else is known; each begins a line.
    pub details: Vec<String>,
    /// What stands on it.
    pub children: Vec<Node>,
}

/// Columns of names: a tree is not moved about by one long name.
const NAMES_AT_LEAST: usize = 18;
const NAMES_AT_MOST: usize = 34;
const SIZE: usize = 10;
const WHAT: usize = 22;
/// What is wider stands below.
const WHAT_AT_MOST: usize = 30;
const FREE: usize = 15;

/// The trees as lines of at most [`WIDTH`] columns.
pub fn lines(trees: &[Node]) -> Vec<String> {
    let names = trees.iter().map(|tree| widest(tree, 2)).max().unwrap_or(0);
    let names = names.clamp(NAMES_AT_LEAST, NAMES_AT_MOST);
    let mut out = Vec::new();
    for tree in trees {
        node(tree, "  ", "  ", names, &mut out);
    }
    out
}

/// Columns up to the end of the longest name that fits.
fn widest(node: &Node, indent: usize) -> usize {
    let own = Some(indent + width(&node.name)).filter(|own| *own <= NAMES_AT_MOST);
    node.children.iter().map(|child| widest(child, indent + 3)).chain(own).max().unwrap_or(0)
}

/// `first` stands in front of the node's own line, `rest` in front of all others.
fn node(node: &Node, first: &str, rest: &str, names: usize, out: &mut Vec<String>) {
    let below = format!("{rest}{}", if node.children.is_empty() { "   " } else { "│  " });
    let name = format!("{first}{}", node.name);
    let mut line = padded(&name, names);
    if width(&name) > names {
        out.extend(wrapped(&node.name, first, rest));
        line = padded(&below, names);
    }
    let size = node.size.map(|size| size.to_string()).unwrap_or_default();
    let free = node.free.map(|free| format!("{free} free")).unwrap_or_default();
    let is_short = width(&node.what) <= WHAT_AT_MOST;
    let what = if is_short { padded(&node.what, WHAT) } else { " ".repeat(WHAT) };
    line.push_str(&format!("  {}  {what}{}  ", right(&size, SIZE), right(&free, FREE)));
    let fits = width(&line) + width(&node.at) <= WIDTH;
    if fits {
        line.push_str(&node.at);
    }
    out.push(line.trim_end().to_owned());
    if !is_short {
        out.extend(wrapped(&node.what, &below, &below));
    }
    if !fits {
        out.extend(wrapped(&format!("at {}", node.at), &below, &below));
    }
    for detail in node.details.iter().filter(|detail| !detail.is_empty()) {
        out.extend(wrapped(detail, &below, &format!("{below}  ")));
    }
    for (index, child) in node.children.iter().enumerate() {
        let is_last = index + 1 == node.children.len();
        let (branch, trunk) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        self::node(child, &format!("{rest}{branch}"), &format!("{rest}{trunk}"), names, out);
    }
}
