//! The menu of a `grub.cfg`: which entry starts without a choice being made.
//!
//! Only what grub-mkconfig writes is understood: `menuentry` and `submenu` with a title and an id, and `set default=`.
//! Deliberately absent: GRUB's script language. Where an entry's number depends on a condition, there is no answer.

use super::super::text;

/// Deeper menus than anybody reads.
const DEPTH_AT_MOST: usize = 16;

/// One entry or submenu.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub title: String,
    /// `--id`, which grub-mkconfig writes by a variable.
    pub id: Option<String>,
    /// The kernel's path as the entry has it.
    pub image: Option<String>,
    /// Whether it is there depends on a condition.
    is_conditional: bool,
    entries: Vec<Entry>,
}

/// A menu, and what it says of its default.
#[derive(Debug, Default)]
pub(super) struct Menu {
    pub entries: Vec<Entry>,
    /// Every value that `default` is set to, variables in it as they stand.
    pub defaults: Vec<String>,
    /// It takes in the entries of `/boot/loader/entries`.
    pub has_bls: bool,
}

impl Menu {
    /// Reads it; what is not understood is passed over.
    pub fn parse(config: &[u8]) -> Menu {
        let mut menu = Menu::default();
        // Open blocks: an entry, a submenu, or something else with braces (a function).
        let mut open: Vec<Option<Entry>> = Vec::new();
        let mut conditions = 0usize;
        for (body, _) in text::lines(config) {
            let Ok(line) = std::str::from_utf8(body) else { continue };
            let line = line.trim();
            let word = line.split_whitespace().next().unwrap_or("");
            match word {
                "menuentry" | "submenu" if line.ends_with('{') && open.len() < DEPTH_AT_MOST => {
                    open.push(Some(entry(line, conditions > 0)));
                    continue;
                }
                "if" => conditions += 1,
                "fi" => conditions = conditions.saturating_sub(1),
                "blscfg" => menu.has_bls = true,
                "set" => menu.defaults.extend(
                    line.strip_prefix("set default=").map(|value| value.trim_matches(['"', '\'']).to_owned()),
                ),
                "linux" | "linux16" | "linuxefi" => {
                    let image = line.split_whitespace().nth(1).map(str::to_owned);
                    if let Some(Some(entry)) = open.last_mut() {
                        entry.image = entry.image.take().or(image);
                    }
                }
                "}" => {
                    let Some(closed) = open.pop() else { continue };
                    let Some(closed) = closed else { continue };
                    match open.iter_mut().rev().flatten().next() {
                        Some(around) => around.entries.push(closed),
                        None => menu.entries.push(closed),
                    }
                }
                _ if line.ends_with('{') && open.len() < DEPTH_AT_MOST => open.push(None),
                _ => {}
            }
        }
        menu
    }

    /// The entry that a value of `default` means: numbers, titles or ids, submenus parted by `>`. The second where the first
    /// is another system's is not looked for: `None` where it is not certain.
    pub fn find(&self, default: &str) -> Option<&Entry> {
        let mut entries = &self.entries;
        let mut found = None;
        for step in split(default) {
            let entry = by_name(entries, &step).or_else(|| by_number(entries, step.parse().ok()?))?;
            entries = &entry.entries;
            found = Some(entry);
        }
        found.filter(|entry| entry.entries.is_empty())
    }
}

/// `>` parts the steps, `>>` stands for one in a title.
fn split(default: &str) -> Vec<String> {
    default.replace(">>", "\0").split('>').map(|step| step.replace('\0', ">")).collect()
}

fn by_name<'e>(entries: &'e [Entry], name: &str) -> Option<&'e Entry> {
    entries.iter().find(|entry| entry.id.as_deref() == Some(name) || entry.title == name)
}

fn by_number(entries: &[Entry], number: usize) -> Option<&Entry> {
    let before = entries.get(..=number)?;
    before.iter().all(|entry| !entry.is_conditional).then(|| entries.get(number)).flatten()
}

fn entry(line: &str, is_conditional: bool) -> Entry {
    let words = quoted_words(line);
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).cloned()
    };
    let id =
        after("--id").or_else(|| after("$menuentry_id_option")).or_else(|| after("${menuentry_id_option}"));
    let inline = words.iter().find_map(|word| word.strip_prefix("--id=").map(str::to_owned));
    Entry {
        title: words.get(1).cloned().unwrap_or_default(),
        id: id.or(inline),
        is_conditional,
        ..Entry::default()
    }
}

/// Words as GRUB's shell parts them, quotes taken off.
fn quoted_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CFG: &str = r#"if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
function load_video {
  insmod vbe
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	if [ x = y ]; then
	  search --fs-uuid 1
	fi
	linux	/boot/vmlinuz-6.1.0-43-amd64 root=UUID=1 ro
	initrd	/boot/initrd.img-6.1.0-43-amd64
}
submenu 'Advanced options for Debian' $menuentry_id_option 'gnulinux-advanced-1' {
	menuentry 'Debian, with Linux 6.1.0-43' --id new {
		linux /boot/vmlinuz-6.1.0-43-amd64
	}
	menuentry 'It'\''s > old' $menuentry_id_option 'gnulinux-6.1.0-9' {
		linux /boot/vmlinuz-6.1.0-9-amd64
	}
}
if [ "$grub_platform" = "efi" ]; then
menuentry 'Firmware' $menuentry_id_option 'uefi' {
	fwsetup
}
fi
menuentry "Last" --id=last {
	linux /last
}
"#;

    #[test]
    fn defaults_by_number_title_and_id() {
        let menu = Menu::parse(CFG.as_bytes());
        assert_eq!(menu.defaults, ["${next_entry}", "${saved_entry}"]);
        let image = |default: &str| menu.find(default).and_then(|entry| entry.image.as_deref());
        let (new, old) = (Some("/boot/vmlinuz-6.1.0-43-amd64"), Some("/boot/vmlinuz-6.1.0-9-amd64"));
        for (default, expected) in [
            ("0", new),
            ("1", None),
            ("1>0", new),
            ("1>1", old),
            ("1>2", None),
            ("gnulinux-advanced-1>gnulinux-6.1.0-9", old),
            ("Advanced options for Debian>It's >> old", old),
            ("Debian GNU/Linux", new),
            ("3", None),
            ("last", Some("/last")),
            ("nothing", None),
            ("", None),
        ] {
            assert_eq!(image(default), expected, "{default}");
        }
    }

    proptest! {
        #[test]
        fn no_menu_panics(config in "(menuentry|submenu|[{}\n '\"\\\\>]|set default=|if|fi|linux|a){0,40}", default in "[0-9a>]{0,6}") {
            let menu = Menu::parse(config.as_bytes());
            menu.find(&default);
        }
    }
}
