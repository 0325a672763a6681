//! Screens that tell: the first token, the support bundle, the log, and what goes down.

use super::Page;
use super::status::{authority, in_address, reachable};
use crate::console::change;
use crate::console::state::State;
use crate::ops::appliance::console::API_PORT;

/// The address that is named in commands.
fn address(state: &State) -> String {
    let machine = state.machine.here();
    machine
        .and_then(|machine| reachable(machine).first().copied())
        .map_or_else(|| "ADDRESS".to_owned(), in_address)
}

pub fn welcome(state: &State, width: usize) -> Page {
    let mut page = Page::new(width, "Enter: it is noted, do not show it again   Esc: later");
    let Some(token) = state.token() else {
        change::token_is_noted().iter().for_each(|line| page.text(line));
        return page;
    };
    page.strong("Welcome. This is the administrator's token: who has it may do everything with the service, over HTTPS.");
    page.blank();
    page.strong(token);
    page.blank();
    page.text("On another machine that has landfall:");
    page.text(&format!("export LANDFALL_SERVICE=https://{}:{API_PORT}", address(state)));
    page.text("export LANDFALL_TOKEN=TOKEN");
    page.text("landfall certificate trust $LANDFALL_SERVICE --fingerprint FINGERPRINT");
    page.text("landfall status --tls-ca ca-cert.pem");
    page.blank();
    page.text("TOKEN is the line above. FINGERPRINT is that of this appliance's authority:");
    authority(&mut page, state);
    page.blank();
    page.strong("Press Enter when you have noted it: it is not shown again.");
    if address(state) == "ADDRESS" {
        page.text("This machine has no address yet: N (Network) sets one; W comes back to here.");
    }
    page
}

pub fn bundle(state: &State, width: usize) -> Page {
    let mut page = Page::new(width, "K: keys for SSH   Esc: status");
    page.text("The support bundle has the machine's state, its settings and its logs. What looks like a secret is taken out of it; look through it before you send it to somebody.");
    page.blank();
    page.text("Fetch it from another machine:");
    page.blank();
    page.exactly(&format!(
        "  ssh root@{} landfall appliance support > bundle.tar.zst",
        address(state).trim_matches(['[', ']'])
    ));
    page.blank();
    let keys = state.machine.here().map(|machine| machine.settings.ssh_keys.iter().flatten().count());
    match keys {
        Some(0) => page.strong("That needs a key for SSH, and there is none yet: K (Keys) adds one."),
        Some(_) => page.text("That needs one of the keys that K (Keys) lists."),
        None => page.text("That needs a key for SSH: K (Keys) lists them."),
    }
    page
}

pub fn log(state: &State, width: usize) -> Page {
    let mut page = Page::new(width, "Enter: read it again   Home/End: oldest/newest   Esc: status");
    match state.log.get() {
        None => page.text("... the log is being read"),
        Some(Err(problem)) => {
            page.strong("The log cannot be read.");
            page.problem(problem);
        }
        Some(Ok(lines)) if lines.is_empty() => page.text("The service has not logged anything yet."),
        Some(Ok(lines)) => lines.iter().for_each(|line| page.text(line)),
    }
    page
}

/// `landfall 0.2.0 with packages of 2026-12-01`
fn system(version: &str, snapshot: &str) -> String {
    let date = match (snapshot.get(..4), snapshot.get(4..6), snapshot.get(6..8)) {
        (Some(year), Some(month), Some(day)) => format!("{year}-{month}-{day}"),
        _ => snapshot.to_owned(),
    };
    format!("landfall {version} with packages of {date}")
}

pub fn power(state: &State, width: usize) -> Page {
    let mut page = Page::new(width, "1, 2, 3: choose; you are asked before it is done   Esc: status");
    if let Some((machine, own)) = state.machine.here().and_then(|all| Some((all, all.system.as_ref()?))) {
        let from = own.slot.as_ref().map_or("a disc".to_owned(), |slot| format!("slot {slot}"));
        page.text(&format!("{}, from {from}", system(&machine.version, &own.snapshot)));
        if let Some(next) = &own.next {
            let next = system(&next.version, &next.snapshot);
            page.strong(&format!("UPDATE: {next} is tried when the machine restarts."));
        }
        page.blank();
    }
    for (number, says, more) in [
        ("1", "Restart the service", "Disks that come in wait for some seconds, and go on by themselves."),
        ("2", "Restart the machine", "Nothing is received for about a minute."),
        ("3", "Power off", "Nothing is protected until it is switched on again."),
    ] {
        page.strong(&format!("{number}  {says}"));
        page.below(more);
        page.blank();
    }
    page
}
