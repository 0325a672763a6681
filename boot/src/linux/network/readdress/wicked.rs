//! wicked's XML: text of `local`, `broadcast`, `peer`, `destination` and `gateway` elements inside of an `interface`. Text is
//! replaced where it stands.

use super::super::settings::Edits;
use super::site::Site;
use super::values::{self, parse_network};
use crate::network_map::Host;
use std::ops::Range;

pub(super) fn change(old: &[u8], path: &str, _names: &[String], site: &mut Site<'_>) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(old).ok()?;
    let mut edits = Edits::new(old);
    for interface in elements(text, 0..text.len(), "interface") {
        let first = |within: &Range<usize>, tag: &str| elements(text, within.clone(), tag).into_iter().next();
        let slice = |range: &Range<usize>| text.get(trimmed(text, range)).unwrap_or("");
        let Some(name) = first(&interface, "name") else { continue };
        let names = [slice(&name).to_owned()];
        let mut on = site.on(&names, path);
        let mut fixed = elements(text, interface.clone(), "ipv4:static");
        if on.dhcp() {
            if first(&interface, "ipv4:dhcp").is_some() {
                on.switched("");
            } else if let Some(range) = fixed.first().cloned() {
                let before = first(&range, "local").map(|range| slice(&range).to_owned()).unwrap_or_default();
                // From the start of the opening tag to the end of the closing one.
                let start = text.get(..range.start).and_then(|text| text.rfind('<')).unwrap_or(range.start);
                let end =
                    range.end + text.get(range.end..).and_then(|text| text.find('>')).map_or(0, |at| at + 1);
                edits.set(&(start..end), "<ipv4:dhcp>\n    <enabled>true</enabled>\n  </ipv4:dhcp>");
                on.switched(&before);
                if first(&range, "destination").is_some() {
                    on.unclear("had static routes with the address that DHCP replaces; they went with it");
                }
                fixed.clear();
            }
        }
        fixed.extend(elements(text, interface.clone(), "ipv6:static"));
        for part in fixed {
            for address in elements(text, part.clone(), "address") {
                let mut host: Option<Host> = None;
                if let Some(local) = first(&address, "local") {
                    match on.address_text(slice(&local), None) {
                        Some((new, moved)) => {
                            host = Some(moved).filter(|_| new != slice(&local));
                            edits.set(&trimmed(text, &local), &new);
                        }
                        None => on.unclear("has an address that is none"),
                    }
                }
                if let (Some(there), Some(new)) =
                    (first(&address, "broadcast"), host.and_then(values::broadcast))
                {
                    edits.set(&trimmed(text, &there), &new);
                }
                if let Some(there) = first(&address, "peer")
                    && let Some(new) = on.peer(slice(&there))
                {
                    edits.set(&trimmed(text, &there), &new);
                }
            }
            for route in elements(text, part.clone(), "route") {
                let to = first(&route, "destination");
                let via = first(&route, "gateway");
                let network = to.as_ref().and_then(|to| parse_network(slice(to), None));
                let (new_to, new_via) = on.route(network, via.as_ref().map(slice));
                if let (Some(to), Some(new)) = (to, new_to) {
                    edits.set(&trimmed(text, &to), &new.to_string());
                }
                if let (Some(via), Some(new)) = (via, new_via) {
                    edits.set(&trimmed(text, &via), &new);
                }
            }
        }
    }
    edits.finish()
}

/// What stands between `<tag …>` and `</tag>`, of every such element that is not inside of another.
fn elements(text: &str, within: Range<usize>, tag: &str) -> Vec<Range<usize>> {
    let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
    let mut found = Vec::new();
    let mut at = within.start;
    while let Some(start) = text.get(at..within.end).and_then(|rest| rest.find(&open)) {
        let after = at + start + open.len();
        let Some(rest) = text.get(after..within.end) else { break };
        // `<name` is also the start of `<namespace`.
        if !rest.starts_with(['>', ' ', '\t', '\n', '\r']) {
            at = after;
            continue;
        }
        let Some(inner) = rest.find('>').map(|end| after + end + 1) else { break };
        if text.get(..inner).is_some_and(|text| text.ends_with("/>")) {
            at = inner;
            continue;
        }
        let Some(end) = text.get(inner..within.end).and_then(|rest| rest.find(&close)) else { break };
        found.push(inner..inner + end);
        at = inner + end + close.len();
    }
    found
}

fn trimmed(text: &str, range: &Range<usize>) -> Range<usize> {
    let inner = text.get(range.clone()).unwrap_or("");
    let start = range.start + inner.len() - inner.trim_start().len();
    start..start + inner.trim().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_in_their_bounds() {
        let text = "<a><name>x</name><names>n</names></a><a k='v'> y </a><a/><a>open";
        let found: Vec<&str> =
            elements(text, 0..text.len(), "a").into_iter().map(|range| &text[range]).collect();
        assert_eq!(found, ["<name>x</name><names>n</names>", " y "]);
        assert_eq!(&text[trimmed(text, &elements(text, 0..text.len(), "a")[1])], "y");
    }
}
