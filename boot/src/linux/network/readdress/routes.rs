//! Files of routes: lines of arguments for `ip route` and `ip rule` (route-eth0, rule-eth0 of Red Hat), columns (ifroute-eth0,
//! routes of SUSE), assignments (the older kind of route-eth0); and commands that add routes.

use super::super::settings::{Edits, lines, shell, str_at};
use super::site::{On, Site};
use super::values::{addresses, parse_network, parse_prefix, prefix_like};
use crate::linux::text;
use ipnet::IpNet;

pub(super) fn change(old: &[u8], path: &str, names: &[String], site: &mut Site<'_>) -> Option<Vec<u8>> {
    let file = path.rsplit('/').next().unwrap_or("");
    if file == "static-routes" {
        return every(old, path, site);
    }
    if file.starts_with("route-") && shell(old).iter().any(|one| one.key.starts_with("ADDRESS")) {
        return assignments(old, path, names, site);
    }
    let is_columns = file == "routes" || file.starts_with("ifroute-");
    let mut edits = Edits::new(old);
    for (body, whole) in lines(old) {
        let bytes = old.get(body.clone()).unwrap_or_default();
        if text::is_comment(bytes) {
            continue;
        }
        let words: Vec<_> = text::words(bytes)
            .into_iter()
            .map(|word| body.start + word.start..body.start + word.end)
            .collect();
        let values: Vec<&str> = words.iter().filter_map(|word| str_at(old, word)).collect();
        if values.len() != words.len() {
            continue;
        }
        if is_columns {
            columns(&values, names, path, site, &mut |n, new| match (words.get(n), new) {
                (Some(word), Some(new)) => edits.set(word, &new),
                (_, None) => edits.remove(&whole),
                _ => {}
            });
            continue;
        }
        let mut on = site.on(names, path);
        let arguments = match file.starts_with("rule") {
            true => Command::rule(&values),
            false => Command::ip(&values),
        };
        if arguments.to.is_none() && arguments.sources.is_empty() {
            on.leftover(&values.join(" "));
        }
        if arguments.is_replaced(&values, &on) {
            edits.remove(&whole);
            continue;
        }
        for (n, new) in arguments.change(&values, &mut on) {
            if let Some(word) = words.get(n) {
                edits.set(word, &new);
            }
        }
    }
    edits.finish()
}

/// `DESTINATION GATEWAY NETMASK INTERFACE …` (SUSE's routes(5)). `set` gets a column and its new text, or `None` for a
/// line that goes.
fn columns(
    values: &[&str],
    names: &[String],
    path: &str,
    site: &mut Site<'_>,
    set: &mut dyn FnMut(usize, Option<String>),
) {
    let column = |n: usize| values.get(n).copied().filter(|value| *value != "-");
    let (Some(to), via, mask) = (column(0), column(1), column(2)) else { return };
    let names: Vec<String> = match (column(3), names) {
        (Some(name), []) => vec![name.to_owned()],
        (_, names) => names.to_vec(),
    };
    let mut on = match (names.is_empty(), via) {
        (true, Some(via)) => site.beside(via, path),
        _ => site.on(&names, path),
    };
    let Some(network) = parse_network(to, mask.and_then(parse_prefix)) else {
        on.leftover(&values.join(" "));
        return;
    };
    // The default route of an interface comes by DHCP as its address does.
    if on.is_replaced(Some(network), via) {
        set(0, None);
        return;
    }
    let (new_to, new_via) = on.route(Some(network), via);
    if let Some(new) = new_to {
        set(0, Some(if to.contains('/') { new.to_string() } else { new.addr().to_string() }));
        if let Some(mask) = mask.filter(|_| !to.contains('/')) {
            set(2, Some(prefix_like(mask, new.prefix_len())));
        }
    }
    if let Some(new) = new_via {
        set(1, Some(new));
    }
}

/// /etc/sysconfig/static-routes: `any net 10.9.0.0 netmask 255.255.0.0 gw 10.1.0.9`, arguments of `route add` without
/// the dash of the first.
fn every(old: &[u8], path: &str, site: &mut Site<'_>) -> Option<Vec<u8>> {
    let mut edits = Edits::new(old);
    for (body, _) in lines(old) {
        let bytes = old.get(body.clone()).unwrap_or_default();
        let words: Vec<_> = text::words(bytes)
            .into_iter()
            .map(|word| body.start + word.start..body.start + word.end)
            .skip(1)
            .collect();
        let values: Vec<&str> = words.iter().map(|word| edits.text(word)).collect();
        if text::is_comment(bytes) {
            continue;
        }
        let command = Command::old(&values);
        let via = command.via.and_then(|at| values.get(at));
        let mut on = match via {
            Some(via) => site.beside(via, path),
            None => site.whole(path),
        };
        for (n, new) in command.change(&values, &mut on) {
            if let Some(word) = words.get(n) {
                edits.set(word, &new);
            }
        }
    }
    edits.finish()
}

/// Of a route in assignments.
const KEYS: &[&str] = &["ADDRESS", "NETMASK", "PREFIX", "GATEWAY", "METRIC", "OPTIONS"];

/// `ADDRESS0=`, `NETMASK0=`, `GATEWAY0=`.
fn assignments(old: &[u8], path: &str, names: &[String], site: &mut Site<'_>) -> Option<Vec<u8>> {
    let mut edits = Edits::new(old);
    let settings = shell(old);
    for address in &settings {
        let Some(number) = address.key.strip_prefix("ADDRESS") else { continue };
        let find = |key: &str| settings.iter().find(|one| one.key == format!("{key}{number}"));
        let (mask, gateway) = (find("NETMASK").or(find("PREFIX")), find("GATEWAY"));
        let mask_text = mask.map(|one| edits.text(&one.value));
        let Some(to) = parse_network(edits.text(&address.value), mask_text.and_then(parse_prefix)) else {
            continue;
        };
        let mut on = site.on(names, path);
        if on.is_replaced(Some(to), gateway.map(|one| edits.text(&one.value))) {
            for one in
                settings.iter().filter(|one| KEYS.iter().any(|key| one.key == format!("{key}{number}")))
            {
                edits.remove(&one.line);
            }
            continue;
        }
        let (new_to, new_via) = on.route(Some(to), gateway.map(|one| edits.text(&one.value)));
        if let Some(new) = new_to {
            edits.set(&address.value, &new.addr().to_string());
            if let (Some(mask), Some(text)) = (mask, mask_text) {
                edits.set(&mask.value, &prefix_like(text, new.prefix_len()));
            }
        }
        if let (Some(gateway), Some(new)) = (gateway, new_via) {
            edits.set(&gateway.value, &new);
        }
    }
    edits.finish()
}

/// Where the words of a command are that a site decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    to: Option<usize>,
    mask: Option<usize>,
    via: Option<usize>,
    /// Addresses of the machine, and networks in rules.
    sources: Vec<usize>,
    /// The route is in a table of its own.
    has_table: bool,
}

/// A command that adds or removes a route: `ip route add …`, `route add -net …`, with a path before it or not. Behind it
/// may come what a shell does next (`|| true`), if no address is in that.
pub(super) fn command(words: &[&str]) -> Option<Command> {
    let head = first_command(words);
    let tail = words.get(head.len()..)?;
    if addresses(&tail.join(" ")).next().is_some() {
        return None;
    }
    let (program, rest) = head.split_first()?;
    let found = match program.rsplit('/').next()? {
        "ip" => {
            let options = rest.iter().take_while(|word| word.starts_with('-')).count();
            let kind = rest.get(options)?;
            let verb = rest.get(options + 1)?;
            let verbs = ["add", "a", "del", "delete", "d", "replace", "append", "change"];
            if !verbs.contains(verb) {
                return None;
            }
            let arguments = rest.get(options + 2..)?;
            let found = match *kind {
                "route" | "ro" | "r" => Command::ip(arguments),
                "rule" | "ru" => Command::rule(arguments),
                _ => return None,
            };
            found.behind(options + 3)
        }
        "route" => {
            let start = rest.iter().position(|word| ["add", "del"].contains(word))? + 1;
            Command::old(rest.get(start..)?).behind(start + 1)
        }
        _ => return None,
    };
    // A value that the shell makes is not known.
    let is_plain = |at: usize| words.get(at).is_some_and(|word| !bare(word).contains(SHELL));
    let is_known = found.places().all(is_plain);
    is_known.then_some(found)
}

/// What means something to a shell.
const SHELL: &[char] = &['$', '`', '|', '&', ';', '(', '<', '>'];

/// The words before `||`, `&&`, `2>…` and their like, and up to one with a semicolon at its end.
fn first_command<'w, 't>(words: &'w [&'t str]) -> &'w [&'t str] {
    let begins = |word: &&str| {
        word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['|', '&', ';', '>', '<'])
    };
    let end = words.iter().position(begins).unwrap_or(words.len());
    let end = words.iter().position(|word| word.ends_with(';')).map_or(end, |at| end.min(at + 1));
    words.get(..end).unwrap_or(words)
}

/// A word without the semicolon that ends its command.
fn bare<'t>(word: &&'t str) -> &'t str {
    word.strip_suffix(';').unwrap_or(word)
}

impl Command {
    /// The arguments of `ip route add`.
    fn ip(words: &[&str]) -> Command {
        let mut found = Command::default();
        let kinds =
            ["unicast", "local", "broadcast", "multicast", "throw", "unreachable", "prohibit", "blackhole"];
        let mut at = 0;
        while let Some(word) = words.get(at) {
            match *word {
                "via" => {
                    let skip = words.get(at + 1).is_some_and(|word| ["inet", "inet6"].contains(word));
                    at += 1 + usize::from(skip);
                    found.via = Some(at);
                }
                "src" | "from" => {
                    at += 1;
                    found.sources.push(at);
                }
                "to" => {
                    at += 1;
                    found.to = Some(at);
                }
                word if kinds.contains(&word) => {}
                "onlink" => {}
                key @ ("table" | "dev" | "metric" | "proto" | "scope") => {
                    at += 1;
                    found.has_table |= key == "table";
                }
                // Every other keyword has a value.
                _ if found.to.is_some() || found.via.is_some() => at += 1,
                _ => found.to = Some(at),
            }
            at += 1;
        }
        found.within(words.len())
    }

    /// The arguments of `ip rule add`.
    pub fn rule(words: &[&str]) -> Command {
        let keys = words.iter().enumerate().filter(|(_, word)| ["from", "to"].contains(word));
        Command { sources: keys.map(|(at, _)| at + 1).collect(), ..Command::default() }.within(words.len())
    }

    /// The arguments of `route add`.
    fn old(words: &[&str]) -> Command {
        let mut found = Command::default();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            match *word {
                "-net" | "net" | "-host" | "host" | "-A" | "inet" | "inet6" | "reject" => {}
                "netmask" | "gw" | "metric" | "dev" | "mss" | "window" | "irtt" => {
                    at += 1;
                    match *word {
                        "netmask" => found.mask = Some(at),
                        "gw" => found.via = Some(at),
                        _ => {}
                    }
                }
                _ if found.to.is_none() => found.to = Some(at),
                _ => {}
            }
            at += 1;
        }
        found.within(words.len())
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        [self.to, self.mask, self.via].into_iter().flatten().chain(self.sources.iter().copied())
    }

    /// The same, with so many words before it.
    fn behind(mut self, count: usize) -> Command {
        for place in [&mut self.to, &mut self.mask, &mut self.via].into_iter().flatten() {
            *place += count;
        }
        self.sources.iter_mut().for_each(|place| *place += count);
        self
    }

    fn within(mut self, length: usize) -> Command {
        for place in [&mut self.to, &mut self.mask, &mut self.via] {
            *place = place.filter(|at| *at < length);
        }
        self.sources.retain(|at| *at < length);
        self
    }

    fn word<'t>(words: &[&'t str], at: Option<usize>) -> Option<&'t str> {
        words.get(at?).map(bare)
    }

    fn network(&self, words: &[&str]) -> Option<IpNet> {
        let mask = Command::word(words, self.mask);
        parse_network(Command::word(words, self.to)?, mask.and_then(parse_prefix))
    }

    /// True for a default route that goes with the address that DHCP replaces.
    pub fn is_replaced(&self, words: &[&str], on: &On<'_, '_>) -> bool {
        !self.has_table && on.is_replaced(self.network(words), Command::word(words, self.via))
    }

    /// The words that change, by number.
    pub fn change(&self, words: &[&str], on: &mut On<'_, '_>) -> Vec<(usize, String)> {
        let word = |at: Option<usize>| Command::word(words, at);
        let (to, mask, via) = (word(self.to), word(self.mask), word(self.via));
        let mut changes = Vec::new();
        let network = self.network(words);
        if network.is_some() || to.is_none() && via.is_some() {
            let (new_to, new_via) = on.route(network, via);
            if let (Some(at), Some(to), Some(new)) = (self.to, to, new_to) {
                changes.push((at, if to.contains('/') { new.to_string() } else { new.addr().to_string() }));
                if let (Some(at), Some(mask)) = (self.mask, mask) {
                    changes.push((at, prefix_like(mask, new.prefix_len())));
                }
            }
            if let (Some(at), Some(new)) = (self.via, new_via) {
                changes.push((at, new));
            }
        }
        for at in &self.sources {
            if let Some(new) = word(Some(*at)).and_then(|word| on.network_text(word)) {
                changes.push((*at, new));
            }
        }
        for (at, new) in &mut changes {
            if words.get(*at).is_some_and(|word| word.ends_with(';')) {
                new.push(';');
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(line: &str) -> Option<(Option<&str>, Option<&str>, Vec<&str>)> {
        let words: Vec<&str> = line.split(' ').collect();
        let found = command(&words)?;
        let word = |at: Option<usize>| at.map(|at| words[at]);
        Some((word(found.to), word(found.via), found.sources.iter().map(|at| words[*at]).collect()))
    }

    #[test]
    fn commands_are_taken_apart() {
        for (line, to, via, sources) in [
            ("ip route add 10.9.0.0/16 via 10.1.0.9 dev eth0", Some("10.9.0.0/16"), Some("10.1.0.9"), vec![]),
            (
                "/sbin/ip -6 route replace default via fe80::1 dev eth0",
                Some("default"),
                Some("fe80::1"),
                vec![],
            ),
            (
                "ip route add to 10.9.0.0/16 dev eth0 src 10.1.0.5 metric 10",
                Some("10.9.0.0/16"),
                None,
                vec!["10.1.0.5"],
            ),
            ("ip rule add from 10.1.0.0/16 table 7", None, None, vec!["10.1.0.0/16"]),
            (
                "route add -net 10.9.0.0 netmask 255.255.0.0 gw 10.1.0.9",
                Some("10.9.0.0"),
                Some("10.1.0.9"),
                vec![],
            ),
            ("route add default gw 10.1.0.9 eth0", Some("default"), Some("10.1.0.9"), vec![]),
        ] {
            assert_eq!(places(line), Some((to, via, sources)), "{line}");
        }
        for other in ["ip route add 10.9.0.0/16 via $GW", "ip route show", "iptables -A INPUT", "ip", ""] {
            assert_eq!(places(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_command_panics(words in proptest::collection::vec("(ip|route|rule|add|-net|via|src|to|gw|netmask|1.2.3.4)", 0..8)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if let Some(found) = command(&words) {
                for at in [found.to, found.via, found.mask].into_iter().flatten().chain(found.sources) {
                    prop_assert!(at < words.len());
                }
            }
        }
    }
}
