//! udev rules that name interfaces: 70-persistent-net.rules and the administrator's own.

use super::assign::Assigned;
use super::{Given, Reader, is_name, mac};
use crate::Result;
use crate::linux::draft::Draft;
use crate::linux::text;
use crate::patch::{InitramfsFile, Text};
use crate::tree::GuestTreeExt;
use std::ops::Range;

const FOLDER: &str = "/etc/udev/rules.d";

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    for path in reader.files(FOLDER, ".rules")? {
        let content = reader.text(&path)?.unwrap_or_default();
        for line in content.lines() {
            let Some(rule) = Rule::parse(line.as_bytes()) else { continue };
            if let Some(mac) = rule.mac() {
                let given = Given {
                    name: rule.name.clone(),
                    mac,
                    proof: path.clone(),
                    is_pinned: rule.pins().next().is_some(),
                };
                reader.network.given.push(given);
            }
        }
    }
    Ok(())
}

/// One rule on one line that gives a network interface a fixed name.
struct Rule {
    terms: Vec<Term>,
    name: String,
}

/// `ATTR{address}=="…"` and where it stands, without the comma.
struct Term {
    key: String,
    operator: String,
    value: String,
    range: Range<usize>,
}

impl Rule {
    fn parse(line: &[u8]) -> Option<Rule> {
        let line = std::str::from_utf8(line).ok()?;
        if line.trim_start().starts_with('#') || line.trim_end().ends_with('\\') {
            return None;
        }
        let terms = terms(line)?;
        let is_net = terms.iter().any(|term| term.key == "SUBSYSTEM" && term.value == "net");
        let name = terms.iter().find(|term| term.key == "NAME" && term.operator != "==")?.value.clone();
        (is_net && is_name(&name)).then_some(Rule { terms, name })
    }

    fn mac(&self) -> Option<String> {
        let address = ["ATTR{address}", "ATTRS{address}", "SYSFS{address}"];
        let term =
            self.terms.iter().find(|term| address.contains(&term.key.as_str()) && term.operator == "==")?;
        mac(&term.value)
    }

    /// The terms that only the old hardware fulfils.
    fn pins(&self) -> impl Iterator<Item = &Term> {
        self.terms.iter().filter(|term| {
            term.operator == "=="
                && match term.key.as_str() {
                    "DRIVERS" | "DRIVER" => term.value != "?*" && term.value != "*",
                    "KERNELS" | "ID" | "BUS" | "SUBSYSTEMS" | "DEVPATH" => true,
                    "ENV{ID_PATH}"
                    | "ENV{ID_NET_NAME_PATH}"
                    | "ENV{ID_NET_NAME_SLOT}"
                    | "ENV{ID_NET_NAME}" => true,
                    "ENV{ID_NET_DRIVER}" => true,
                    key => key.starts_with("ATTRS{vendor}") || key.starts_with("ATTRS{device}"),
                }
        })
    }

    /// The line without its pins. A rule that has nothing but pins goes by `address` from now on.
    fn unpinned(&self, line: &[u8], address: Option<&str>) -> Option<Vec<u8>> {
        let pins: Vec<_> = self.pins().collect();
        let mut new = line.to_vec();
        let needs_address = self.mac().is_none();
        for (at, pin) in pins.iter().enumerate().rev() {
            if at == 0 && needs_address {
                let term = format!("ATTR{{address}}==\"{}\"", address?);
                new = text::replace(&new, pin.range.clone(), term.as_bytes());
                continue;
            }
            // With the comma and blanks that follow, or those before it at the end of the line.
            let after = new.get(pin.range.end..)?;
            let gap = after.iter().take_while(|byte| b", \t".contains(byte)).count();
            new = text::replace(&new, pin.range.start..pin.range.end.checked_add(gap)?, b"");
        }
        (!pins.is_empty()).then_some(new)
    }
}

/// `None` where the line is not understood.
fn terms(line: &str) -> Option<Vec<Term>> {
    let mut terms = Vec::new();
    let mut at = 0;
    loop {
        let rest = line.get(at..)?;
        let skip = rest.len() - rest.trim_start_matches([',', ' ', '\t', '\r']).len();
        at += skip;
        let rest = line.get(at..)?;
        if rest.is_empty() {
            return Some(terms);
        }
        let operator_at = rest.find(['=', '!', '+', '-', ':'])?;
        let quote_at = rest.find('"')?;
        let operator = rest.get(operator_at..quote_at)?.trim();
        if !["==", "!=", "=", "+=", "-=", ":="].contains(&operator) {
            return None;
        }
        let value_at = quote_at + 1;
        let length = rest.get(value_at..)?.find('"')?;
        let end = value_at + length + 1;
        terms.push(Term {
            key: rest.get(..operator_at)?.trim().to_owned(),
            operator: operator.to_owned(),
            value: rest.get(value_at..value_at + length)?.to_owned(),
            range: at..at + end,
        });
        at += end;
    }
}

/// Takes driver and slot out of rules that give names, so that they go by address alone.
pub(super) fn unpin(
    draft: &mut Draft<'_>,
    assigned: &Assigned,
    inside: &mut Vec<InitramfsFile>,
) -> Result<()> {
    for file in draft.scene.tree.names(FOLDER)? {
        if !file.ends_with(".rules") {
            continue;
        }
        let path = format!("{FOLDER}/{file}");
        let mut left = Vec::new();
        let why = "The rule asked for the old card's driver or slot; the hardware address alone decides now.";
        let changed = draft.edit(&path, why, |old| {
            text::map_lines(old, |body| {
                let rule = Rule::parse(body)?;
                let address =
                    assigned.names.iter().find(|name| name.name == rule.name).map(|name| name.mac.as_str());
                let new = rule.unpinned(body, address);
                if new.is_none() && rule.pins().next().is_some() {
                    left.push(rule.name.clone());
                }
                new
            })
        })?;
        for name in left {
            draft.find(
                "linux-network-by-driver",
                format!("{path} gives the name {name} by driver or slot, which this move changes, and its card is not certain."),
                format!("Let the rule go by the card's hardware address (ATTR{{address}}) in {path}."),
            );
        }
        if changed && let Some(contents) = draft.read(&path)? {
            let path = format!("lib/udev/rules.d/{file}");
            inside.push(InitramfsFile { path, contents: Text(contents), mode: 0o644 });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unpinned(line: &str, address: Option<&str>) -> Option<String> {
        let new = Rule::parse(line.as_bytes())?.unpinned(line.as_bytes(), address)?;
        Some(String::from_utf8(new).unwrap())
    }

    #[test]
    fn pins_are_taken_out() {
        let generated = r#"SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="00:0c:29:aa:bb:cc", ATTR{dev_id}=="0x0", ATTR{type}=="1", KERNEL=="eth*", NAME="eth0""#;
        assert_eq!(unpinned(generated, None), None, "as Debian's generator writes it, it needs nothing");
        let pinned = generated.replace("DRIVERS==\"?*\"", "DRIVERS==\"vmxnet3\", KERNELS==\"0000:03:00.0\"");
        assert_eq!(unpinned(&pinned, None).unwrap(), generated.replace(" DRIVERS==\"?*\",", ""));
        let slot = r#"SUBSYSTEM=="net",ACTION=="add",KERNELS=="0000:03:00.0",NAME="lan0""#;
        assert_eq!(unpinned(slot, None), None);
        assert_eq!(
            unpinned(slot, Some("00:50:56:00:00:01")).unwrap(),
            r#"SUBSYSTEM=="net",ACTION=="add",ATTR{address}=="00:50:56:00:00:01",NAME="lan0""#
        );
        for other in [
            "# SUBSYSTEM==\"net\", KERNELS==\"x\", NAME=\"a\"",
            "SUBSYSTEM==\"block\", KERNELS==\"x\", NAME=\"a\"",
            "SUBSYSTEM==\"net\", KERNELS==\"x\", NAME=\"$env{X}\"",
            "SUBSYSTEM==\"net\", KERNELS==\"x",
        ] {
            assert_eq!(unpinned(other, Some("x")), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_rule_panics(line in "(SUBSYSTEM==\"net\"|NAME=\"a\"|KERNELS==\"x\"|[,= \"\\\\!é]){0,12}") {
            if let Some(new) = unpinned(&line, Some("00:00:00:00:00:01")) {
                prop_assert_eq!(unpinned(&new, Some("00:00:00:00:00:01")), None);
            }
        }
    }
}
