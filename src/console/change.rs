//! From what was typed to requests: forms with what is set now, checked as a whole, and what would change in words.

use super::input::{Field, Form, Subject};
use super::state::Confirm;
use super::text::clean;
use crate::moment::Moment;
use crate::ops::appliance::console::{
    Card, CardStatus, Dhcp, DiskRole, DiskStatus, HostName, Machine, Nic, Problem, Request, Server, Settings,
    SshKey,
};
use landfall_image::Error;
use std::str::FromStr;

const WAYS: [&str; 4] = ["DHCP", "DHCP for IPv4 only", "DHCP for IPv6 only", "fixed address"];
const DHCP: [Dhcp; 4] = [Dhcp::Yes, Dhcp::Ipv4, Dhcp::Ipv6, Dhcp::No];
/// Makes a token of the administrator, where a key for SSH is there.
pub const NEW_TOKEN: &str = "ssh root@ADDRESS landfall token add NAME --role admin";

/// A row of the network's screen: a card, and what is set on it.
pub struct CardRow<'a> {
    /// The card, where it is there.
    pub card: Option<&'a CardStatus>,
    /// The number of its entry in the settings.
    pub entry: Option<usize>,
    /// That entry.
    pub nic: Option<&'a Nic>,
}

/// All cards, each with its entries (one for each VLAN on it), then entries of cards that are not there.
pub fn cards(machine: &Machine) -> Vec<CardRow<'_>> {
    let nics = machine.settings.nics();
    let mut rows: Vec<CardRow<'_>> = Vec::new();
    let mut is_first = true;
    let mut used = vec![false; nics.len()];
    for card in machine.network.cards.iter().filter(|card| card.is_card) {
        let is_meant = |named: &Card| match named {
            Card::First => is_first,
            Card::Mac(mac) => card.mac.as_ref() == Some(mac),
            Card::Name(name) => *name == card.name,
        };
        let begin = rows.len();
        for (number, nic) in nics.iter().enumerate().filter(|(_, nic)| is_meant(&nic.card)) {
            if let Some(used) = used.get_mut(number) {
                *used = true;
            }
            rows.push(CardRow { card: Some(card), entry: Some(number), nic: Some(nic) });
        }
        if rows.len() == begin {
            rows.push(CardRow { card: Some(card), entry: None, nic: None });
        }
        is_first = false;
    }
    let missing = nics.iter().enumerate().filter(|(number, _)| used.get(*number) == Some(&false));
    rows.extend(missing.map(|(number, nic)| CardRow { card: None, entry: Some(number), nic: Some(nic) }));
    rows
}

impl CardRow<'_> {
    /// What it is called.
    pub fn title(&self) -> String {
        let name = match (self.card, self.nic) {
            (Some(card), _) => card.name.clone(),
            (None, Some(nic)) => nic.card.to_string(),
            (None, None) => String::new(),
        };
        match self.nic.and_then(|nic| nic.vlan) {
            Some(vlan) => format!("{name}, VLAN {vlan}"),
            None => name,
        }
    }
}

fn listed<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Words between blanks and commas.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', ';']).filter(|word| !word.is_empty())
}

/// All words as values of a sort; `what` says what they are to be, `like` how they are written.
fn values<T: FromStr>(text: &str, what: &str, like: &str) -> Result<Vec<T>, Problem> {
    let value = |word: &str| {
        word.parse().map_err(|_| {
            Problem::new(format!("{:?} is no {what}", clean(word)), format!("write it like {like}"))
        })
    };
    words(text).map(value).collect()
}

fn number(text: &str, what: &str, like: &str) -> Result<Option<u16>, Problem> {
    match values::<u16>(text, what, like)?.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(Problem::new(format!("there is room for one {what}"), format!("write it like {like}"))),
    }
}

fn refused(error: &Error) -> Problem {
    Problem::new(error.says(), error.hint_text().unwrap_or_default())
}

/// The form for the card of that row.
pub fn card_form(machine: &Machine, row: usize) -> Option<Form> {
    let rows = cards(machine);
    let row = rows.get(row)?;
    let nic = row.nic;
    let card = match (nic, row.card) {
        (Some(nic), _) => nic.card.clone(),
        (None, Some(card)) => match &card.mac {
            Some(mac) => Card::Mac(mac.clone()),
            None => Card::Name(card.name.clone()),
        },
        (None, None) => return None,
    };
    let way = nic.map_or(0, |nic| DHCP.iter().position(|dhcp| *dhcp == nic.dhcp).unwrap_or(0));
    let set = &machine.settings;
    let field = |label, help, text: String| Field::text(label, help, &text);
    let plain = |value: Option<u16>| value.map(|value| value.to_string()).unwrap_or_default();
    let fields = vec![
        Field::choice("Address by", "Space chooses another: DHCP, or a fixed address", &WAYS, way),
        field(
            "Addresses",
            "with the length of the prefix: 10.0.0.5/24; several with blanks between them; unused with DHCP",
            nic.map(|nic| listed(&nic.addresses)).unwrap_or_default(),
        ),
        field(
            "Gateway",
            "the router: 10.0.0.1; one for IPv4 and one for IPv6; unused with DHCP",
            nic.map(|nic| listed(&nic.gateways)).unwrap_or_default(),
        ),
        field(
            "DNS servers",
            "of the whole machine: 10.0.0.53 10.0.0.54; empty: those that DHCP names",
            set.dns.as_deref().map(listed).unwrap_or_default(),
        ),
        field(
            "Search",
            "domains that short names are looked for in: example.org; empty: those that DHCP names",
            set.search.as_deref().map(listed).unwrap_or_default(),
        ),
        field(
            "MTU",
            "bytes of the longest packet; empty: as usual (1500)",
            plain(nic.and_then(|nic| nic.mtu)),
        ),
        field(
            "VLAN",
            "1 to 4094, where the switch gives tagged packets; empty: none",
            plain(nic.and_then(|nic| nic.vlan)),
        ),
    ];
    let title = row.title();
    let mac = row.card.and_then(|card| card.mac.as_ref()).map(|mac| format!(" ({mac})")).unwrap_or_default();
    Some(Form {
        title: format!("Network card {title}{mac}"),
        about: Vec::new(),
        fields,
        at: 0,
        trouble: None,
        subject: Subject::Nic { entry: row.entry, card, title },
    })
}

fn one_field(title: &str, about: &[&str], field: Field, subject: Subject) -> Form {
    Form {
        title: title.to_owned(),
        about: about.iter().map(|line| (*line).to_owned()).collect(),
        fields: vec![field],
        at: 0,
        trouble: None,
        subject,
    }
}

pub fn host_name_form(machine: &Machine) -> Form {
    let field = Field::text(
        "Host name",
        "dr1 or dr1.example.org; empty: what the hypervisor gave",
        &machine.hostname,
    );
    one_field("Host name", &[], field, Subject::HostName)
}

pub fn servers_form(machine: &Machine) -> Form {
    let set = machine.settings.ntp.as_deref().map(listed).unwrap_or_default();
    let field = Field::text(
        "Servers",
        "names or addresses of NTP servers; empty: what the hypervisor gave, else DHCP's",
        &set,
    );
    one_field("Servers of time", &[], field, Subject::TimeServers)
}

pub fn clock_form(machine: &Machine) -> Form {
    let now = machine.time.now.to_string();
    let field = Field::text("Time (UTC)", "2026-11-29 14:03:05", now.trim_end_matches(" UTC"));
    let about =
        ["The time in UTC, not in the local time zone. It is set at the moment in which you say yes."];
    one_field("Set the clock", &about, field, Subject::Clock)
}

pub fn key_form() -> Form {
    let field = Field::text(
        "Key",
        "one line of a .pub file: ssh-ed25519 AAAA... name; it can be pasted on a serial line",
        "",
    );
    let about = ["Whoever has the private half can come in as root with SSH."];
    one_field("Add a key for SSH", &about, field, Subject::AddKey)
}

/// The form that takes the disk of that row, or why it cannot be taken.
pub fn disk_form(machine: &Machine, row: usize) -> Option<Result<Form, Problem>> {
    let disk = machine.disks.get(row)?;
    let no = |says: &str, fix: &str| Some(Err(Problem::new(format!("{} {says}", disk.name), fix)));
    match disk.role {
        DiskRole::System => return no("has the appliance itself", "Attach another disk for the vault."),
        DiskRole::Data => {
            return no("has the vault already", "1 lets the vault have all of a disk that was made larger.");
        }
        DiskRole::Other => {}
    }
    if !disk.holds.is_empty() && !disk.has_vault {
        let says = format!("is not empty: it holds {}", disk.holds.join(", "));
        return no(
            &says,
            "A disk with content is never taken. Attach an empty one, or empty this one elsewhere.",
        );
    }
    let field = Field::text("Name", "type the disk's name to show that this one is meant", "");
    let about = [
        format!("The disk {} becomes the vault's: {}.", disk.name, size_and_make(disk)),
        fate(disk).to_owned(),
        format!("To go on type its name, {}, and press Enter.", disk.name),
    ];
    Some(Ok(Form {
        title: format!("Take the disk {} for the vault", disk.name),
        about: about.to_vec(),
        fields: vec![field],
        at: 0,
        trouble: None,
        subject: Subject::Claim { disk: disk.name.clone(), serial: disk.serial.clone().unwrap_or_default() },
    }))
}

/// What becomes of a disk that is taken.
fn fate(disk: &DiskStatus) -> &'static str {
    match (disk.has_vault, disk.is_whole) {
        (true, true) => "There is a vault on it: it is used as it is, with all of its machines and points.",
        (true, false) => {
            "A vault on it was not made to its end: it is made anew, and takes all of the disk. Nothing can be in it yet."
        }
        (false, _) => "A file system is made on it, which takes all of it.",
    }
}

/// `10.0 GiB, Virtual disk, serial 12`
pub fn size_and_make(disk: &DiskStatus) -> String {
    let mut parts = vec![disk.size.to_string()];
    parts.extend(disk.model.clone());
    parts.extend(disk.serial.as_ref().map(|serial| format!("serial {serial}")));
    parts.join(", ")
}

/// What a form asks for, after a look at all of it.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn check(form: &Form, machine: &Machine) -> Result<Confirm, Problem> {
    match &form.subject {
        Subject::Nic { entry, card, title } => network(form, machine, *entry, card, title),
        Subject::HostName => host_name(&form.typed(0), machine),
        Subject::TimeServers => servers(&form.typed(0), machine),
        Subject::Clock => clock(&form.typed(0), machine),
        Subject::AddKey => add_key(&form.typed(0), machine),
        Subject::Claim { disk, serial } => claim(&form.typed(0), machine, disk, serial),
    }
}

/// `label  before -> after`, where the two differ.
fn differs(label: &str, before: &str, after: &str) -> Option<String> {
    let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    (before != after).then(|| format!("{label:<12} {}  ->  {}", shown(before), shown(after)))
}

fn way(dhcp: Dhcp) -> &'static str {
    DHCP.iter().position(|one| *one == dhcp).and_then(|at| WAYS.get(at)).copied().unwrap_or_default()
}

fn network(
    form: &Form,
    machine: &Machine,
    entry: Option<usize>,
    card: &Card,
    title: &str,
) -> Result<Confirm, Problem> {
    let set = &machine.settings;
    let before = entry.and_then(|entry| set.nics().get(entry)).cloned();
    let mut nic = before.clone().unwrap_or_else(|| Nic::new(card.clone()));
    nic.dhcp = DHCP.get(form.chosen(0)).copied().unwrap_or_default();
    // A family that has DHCP has no fixed addresses besides.
    let is_fixed = |is_v4: bool| match nic.dhcp {
        Dhcp::Yes => false,
        Dhcp::Ipv4 => !is_v4,
        Dhcp::Ipv6 => is_v4,
        Dhcp::No => true,
    };
    nic.addresses =
        values::<ipnet::IpNet>(&form.typed(1), "address with the length of its prefix", "10.0.0.5/24")?;
    nic.addresses.retain(|address| is_fixed(address.addr().is_ipv4()));
    nic.gateways = values::<std::net::IpAddr>(&form.typed(2), "address of a router", "10.0.0.1")?;
    nic.gateways.retain(|gateway| is_fixed(gateway.is_ipv4()));
    nic.mtu = number(&form.typed(5), "MTU", "1500, or 9000 with jumbo frames")?;
    nic.vlan = number(&form.typed(6), "number of a VLAN", "100")?;
    if nic.dhcp == Dhcp::No && nic.addresses.is_empty() {
        return Err(Problem::new("there is no address", "write one like 10.0.0.5/24, or choose DHCP"));
    }

    let mut nics = set.nics().to_vec();
    let mut others = None;
    match entry.and_then(|entry| nics.get_mut(entry)) {
        Some(place) => *place = nic.clone(),
        None => {
            // Without any setting every card has DHCP: the others keep it.
            if nics.is_empty() {
                let all = machine.network.cards.iter().filter(|one| one.is_card);
                let all = all
                    .filter_map(|one| Some(Nic { dhcp: Dhcp::Yes, ..Nic::new(Card::Mac(one.mac.clone()?)) }));
                nics.extend(all.filter(|one| one.card != *card));
                others = (!nics.is_empty()).then(|| "The other cards keep DHCP.".to_owned());
            }
            nics.push(nic.clone());
        }
    }
    let dns = list(
        &form.typed(3),
        set.dns.as_deref(),
        machine.typed.dns.as_deref(),
        "address of a DNS server",
        "10.0.0.53",
    )?;
    let search = list(
        &form.typed(4),
        set.search.as_deref(),
        machine.typed.search.as_deref(),
        "domain",
        "example.org",
    )?;
    let wanted = Settings { nic: Some(nics), dns, search, ..set.clone() };
    wanted.check().map_err(|error| refused(&error))?;

    let old = before.unwrap_or_else(|| Nic { dhcp: Dhcp::Yes, ..Nic::new(card.clone()) });
    let plain = |value: Option<u16>| value.map(|value| value.to_string()).unwrap_or_default();
    let typed = |number: usize| words(&form.typed(number)).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = [
        differs("address by", way(old.dhcp), way(nic.dhcp)),
        differs("addresses", &listed(&old.addresses), &listed(&nic.addresses)),
        differs("gateway", &listed(&old.gateways), &listed(&nic.gateways)),
        differs("DNS servers", &set.dns.as_deref().map(listed).unwrap_or_default(), &typed(3)),
        differs("search", &set.search.as_deref().map(listed).unwrap_or_default(), &typed(4)),
        differs("MTU", &plain(old.mtu), &plain(nic.mtu)),
        differs("VLAN", &plain(old.vlan), &plain(nic.vlan)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if lines.is_empty() {
        return Err(nothing());
    }
    let mut lines = lines;
    lines.push(String::new());
    lines.extend(others);
    lines.push(
        "Connections to an address that goes are cut. The certificate follows the addresses; its authority stays the same."
            .to_owned(),
    );
    Ok(Confirm {
        title: format!("Change the network card {title}?"),
        lines,
        doing: "The network is changed".to_owned(),
        request: Request::SetNetwork { nic: wanted.nic, dns: wanted.dns, search: wanted.search },
    })
}

/// A list that may be left to others: as it was typed before where it was not changed, else what is typed now.
fn list<T: FromStr + ToString + Clone>(
    typed: &str,
    holds: Option<&[T]>,
    own: Option<&[T]>,
    what: &str,
    like: &str,
) -> Result<Option<Vec<T>>, Problem> {
    let values = values::<T>(typed, what, like)?;
    if listed(&values) == holds.map(listed).unwrap_or_default() {
        return Ok(own.map(<[T]>::to_vec));
    }
    // Emptied: back to what lies below, or nothing where that is what was there.
    Ok(match (values.is_empty(), own.is_some()) {
        (true, true) => None,
        _ => Some(values),
    })
}

fn nothing() -> Problem {
    Problem::new("nothing would change", "change a field, or press Esc to go back")
}

fn host_name(typed: &str, machine: &Machine) -> Result<Confirm, Problem> {
    let name = match typed {
        "" => None,
        typed => Some(typed.parse::<HostName>().map_err(|error| refused(&error))?),
    };
    if name == machine.settings.hostname && name.is_some() {
        return Err(nothing());
    }
    let after = name.as_ref().map_or("what the hypervisor gave", HostName::as_str);
    Ok(Confirm {
        title: "Change the host name?".to_owned(),
        lines: differs("host name", &machine.hostname, after).into_iter().collect(),
        doing: "The host name is changed".to_owned(),
        request: Request::SetHostname { hostname: name },
    })
}

/// Takes back what was typed of the network.
pub fn network_back(machine: &Machine) -> Confirm {
    let to = match &machine.given_by {
        Some(source) => {
            format!("What was set here is taken back: what the hypervisor gave counts again ({source}).")
        }
        None => "What was set here is taken back: every card has DHCP again.".to_owned(),
    };
    Confirm {
        title: "Take the network's settings back?".to_owned(),
        lines: vec![to, "Connections to an address that goes are cut.".to_owned()],
        doing: "The network is changed".to_owned(),
        request: Request::SetNetwork { nic: None, dns: None, search: None },
    }
}

fn servers(typed: &str, machine: &Machine) -> Result<Confirm, Problem> {
    let servers = words(typed)
        .map(str::parse::<Server>)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refused(&error))?;
    // Emptied: back to what lies below.
    let ntp = Some(servers).filter(|servers| !servers.is_empty());
    let after = match (&ntp, &machine.typed.ntp, &machine.given_by) {
        (Some(servers), ..) => listed(servers),
        (None, None, _) => return Err(nothing()),
        (None, Some(_), Some(_)) => "what the hypervisor gave, else what DHCP names".to_owned(),
        (None, Some(_), None) => "what DHCP names".to_owned(),
    };
    let wanted = Settings { ntp: ntp.clone(), ..machine.settings.clone() };
    wanted.check().map_err(|error| refused(&error))?;
    let before = machine.settings.ntp.as_deref().map(listed).unwrap_or_default();
    let line = differs("servers", &before, &after).ok_or_else(nothing)?;
    Ok(Confirm {
        title: "Change the servers of time?".to_owned(),
        lines: vec![line],
        doing: "The servers of time are changed".to_owned(),
        request: Request::SetTime { utc: None, ntp },
    })
}

fn clock(typed: &str, machine: &Machine) -> Result<Confirm, Problem> {
    let text = typed.trim_end_matches(['Z', 'z']).trim_end_matches("UTC").trim();
    let to: Moment = format!("{text} UTC").parse().map_err(|_| {
        Problem::new(format!("{:?} is no time", clean(typed)), "write it like 2026-11-29 14:03:05, in UTC")
    })?;
    Ok(Confirm {
        title: "Set the clock?".to_owned(),
        lines: vec![
            format!("{:<12} {}  ->  {to}", "clock", machine.time.now),
            String::new(),
            "Recovery points have the clock's time: one that goes back makes their order hard to read."
                .to_owned(),
        ],
        doing: "The clock is set".to_owned(),
        request: Request::SetTime { utc: Some(to), ntp: None },
    })
}

fn add_key(typed: &str, machine: &Machine) -> Result<Confirm, Problem> {
    let key: SshKey = typed.parse().map_err(|error| refused(&error))?;
    let mut keys = machine.settings.ssh_keys.clone().unwrap_or_default();
    if keys.contains(&key) {
        return Err(Problem::new("this key is there already", "press Esc to go back"));
    }
    let shown = key_in_words(&key);
    keys.push(key);
    let wanted = Settings { ssh_keys: Some(keys.clone()), ..machine.settings.clone() };
    wanted.check().map_err(|error| refused(&error))?;
    let mut lines = vec![shown];
    if keys.len() == 1 {
        lines.push("It is the first: from now on the appliance listens for SSH, on port 22.".to_owned());
    }
    Ok(Confirm {
        title: "Let this key in?".to_owned(),
        lines,
        doing: "The keys are changed".to_owned(),
        request: Request::SetSshKeys { keys: Some(keys) },
    })
}

/// Takes out the key of that row.
pub fn remove_key(machine: &Machine, row: usize) -> Option<Confirm> {
    let mut keys = machine.settings.ssh_keys.clone()?;
    let mut lines = vec![key_in_words(keys.get(row)?)];
    keys.remove(row);
    if keys.is_empty() {
        lines.push("It is the last: then nothing listens for SSH any longer.".to_owned());
    }
    Some(Confirm {
        title: "Take this key out?".to_owned(),
        lines,
        doing: "The keys are changed".to_owned(),
        request: Request::SetSshKeys { keys: Some(keys) },
    })
}

/// `ssh-ed25519 ...AbCdEf me@example.org`
pub fn key_in_words(key: &SshKey) -> String {
    const SHOWN: usize = 16;
    let mut parts = key.as_str().splitn(3, ' ');
    let (kind, content) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let from = content.len().saturating_sub(SHOWN);
    format!("{kind} ...{} {}", content.get(from..).unwrap_or_default(), parts.next().unwrap_or("(no name)"))
}

fn claim(typed: &str, machine: &Machine, disk: &str, serial: &str) -> Result<Confirm, Problem> {
    if typed != disk {
        return Err(Problem::new(
            format!("{:?} is not this disk's name", clean(typed)),
            format!("type {disk}, or press Esc"),
        ));
    }
    // It may have been taken out since the form was opened.
    let is_it = |one: &&DiskStatus| one.name == disk && one.serial.as_deref().unwrap_or_default() == serial;
    let found = machine.disks.iter().find(is_it).ok_or_else(|| {
        Problem::new(format!("{disk} is not there any longer"), "press Esc, and look at the disks again")
    })?;
    let doing = match found.has_vault && found.is_whole {
        true => format!("The vault on {disk} is taken"),
        false => format!("A file system is made on {disk}; a large disk takes a while"),
    };
    Ok(Confirm {
        title: format!("Take the disk {disk} for the vault?"),
        lines: vec![fate(found).to_owned()],
        doing,
        request: Request::ClaimDisk { disk: disk.to_owned(), serial: serial.to_owned() },
    })
}

/// Lets the vault have all of its disk.
pub fn grow() -> Confirm {
    Confirm {
        title: "Let the vault have all of its disk?".to_owned(),
        lines: vec![
            "For a disk that was made larger at the hypervisor. Nothing of the vault is touched; it goes on working.".to_owned(),
        ],
        doing: "The vault's file system grows".to_owned(),
        request: Request::GrowDisk {},
    }
}

/// How one comes to another token, for who has lost it.
pub fn lost_token() -> [String; 2] {
    [
        "A token that is lost cannot be looked up. Another one is made over SSH: K (Keys) lets a key in, then from elsewhere:".to_owned(),
        NEW_TOKEN.to_owned(),
    ]
}

/// What is to be known once the first token was noted.
pub fn token_is_noted() -> Vec<String> {
    [["The token is not shown again.".to_owned(), String::new()], lost_token()].concat()
}

/// The first token was noted.
pub fn forget_token() -> Confirm {
    let says = ["Say yes once you have noted it: it is not shown again.".to_owned(), String::new()];
    Confirm {
        title: "Show the token no more?".to_owned(),
        lines: [says, lost_token()].concat(),
        doing: "The token is forgotten here".to_owned(),
        request: Request::ForgetToken {},
    }
}

/// What can be started again or switched off, the machine also while a change `is_under_way`.
pub fn power(number: char, is_under_way: bool) -> Option<Confirm> {
    let confirm = |title: &str, line: &str, doing: &str, request| Confirm {
        title: title.to_owned(),
        lines: vec![line.to_owned()],
        doing: doing.to_owned(),
        request,
    };
    let mut confirm = match number {
        '1' => confirm(
            "Restart the service?",
            "Disks that come in wait for some seconds, and go on by themselves.",
            "The service is restarted",
            Request::RestartService {},
        ),
        '2' => confirm(
            "Restart the machine?",
            "Nothing is received until it is up again, in about a minute. Recovered machines that run from it are stopped.",
            "The machine goes down, and comes up again",
            Request::Restart {},
        ),
        '3' => confirm(
            "Switch the machine off?",
            "NOTHING IS PROTECTED until somebody switches it on again at the hypervisor.",
            "The machine goes down",
            Request::PowerOff {},
        ),
        _ => return None,
    };
    if is_under_way && confirm.request.goes_down() {
        confirm.lines.push(String::new());
        confirm.lines.push(
            "A CHANGE IS UNDER WAY: it is cut off. Look after the start whether it has to be made again."
                .to_owned(),
        );
    }
    Some(confirm)
}
