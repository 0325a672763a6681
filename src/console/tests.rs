//! What is drawn at each place, with names that mean harm among what is shown; and what keys do.

use super::ask::{News, Order};
use super::input::Key;
use super::state::{Over, Screen, State};
use super::view;
use crate::moment::Moment;
use crate::ops::appliance::console::{
    CardStatus, DiskRole, DiskStatus, Local, Machine, Memory, NetworkStatus, NextSystem, Problem, Protection,
    Request, SystemStatus, TimeStatus,
};
use landfall_image::Bytes;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const EVIL: &str = "db\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\u{202e}gnp\u{9b}31m";
const NOW: Moment = Moment(1_795_960_985_000);
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

fn card(name: &str, mac: &str, addresses: &[&str]) -> CardStatus {
    CardStatus {
        name: name.to_owned(),
        mac: Some(mac.parse().unwrap()),
        is_card: true,
        has_link: !addresses.is_empty(),
        speed: Some(10_000),
        mtu: Some(1500),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn disk(name: &str, gib: u64, role: DiskRole, holds: &[&str]) -> DiskStatus {
    DiskStatus {
        name: name.to_owned(),
        size: Bytes::gib(gib),
        model: Some("Virtual disk".to_owned()),
        serial: Some(format!("6000c29{name}")),
        holds: holds.iter().map(|one| (*one).to_owned()).collect(),
        has_vault: false,
        is_whole: false,
        role,
    }
}

fn machine() -> Machine {
    Machine {
        version: "0.1.0".to_owned(),
        hostname: "dr1.example.org".to_owned(),
        network: NetworkStatus {
            cards: vec![
                card("ens192", "52:54:00:12:34:56", &["fe80::1/64", "10.0.0.5/24", "2001:db8::5/64"]),
                card("ens224", "52:54:00:12:34:57", &[]),
            ],
            gateways: vec!["10.0.0.1".parse().unwrap()],
            dns: vec!["10.0.0.53".to_owned()],
            search: vec!["example.org".to_owned()],
        },
        time: TimeStatus { now: NOW, is_synchronised: true, servers: vec!["ntp.example.org".to_owned()] },
        disks: vec![
            disk("sda", 4, DiskRole::System, &["gpt"]),
            disk("sdb", 2048, DiskRole::Data, &["gpt", "xfs"]),
            disk("sdc", 500, DiskRole::Other, &[]),
            DiskStatus { model: Some(EVIL.to_owned()), ..disk("sdd", 10, DiskRole::Other, &["ntfs"]) },
        ],
        system: Some(SystemStatus {
            slot: Some("a".to_owned()),
            snapshot: "20261120T000000Z".to_owned(),
            next: Some(NextSystem { version: "0.2.0".to_owned(), snapshot: "20261201T000000Z".to_owned() }),
        }),
        memory: Memory { total: Bytes::gib(8), available: Bytes::gib(6) },
        problems: Vec::new(),
        settings: Default::default(),
        typed: Default::default(),
        given_by: None,
    }
}

fn protection() -> Protection {
    let machine = |name: &str, protection: &str, because: &str| {
        serde_json::json!({ "name": name, "protection": protection, "because": because, "defined": true, "disks": [],
            "points": 7, "rpo": { "target": 15.0 } })
    };
    serde_json::from_value(serde_json::json!({
        "version": 1, "at": NOW, "protection": "unprotected",
        "vault": { "folder": "/var/lib/landfall/vault", "size": 2_199_023_255_552u64, "free": 1_374_389_534_720u64 },
        "coverage": { "scheduled": 0, "proven": 0 },
        "machines": [
            machine("web01", "protected", "the newest point is 4 s old"),
            machine("web02", "protected", "the newest point is 4 s old"),
            machine(EVIL, "at-risk", "the newest point is 3 h old, and no more than 15 s are allowed for this machine"),
            machine("db01", "unprotected", "its disks are being copied"),
        ],
        "alarms": [{ "id": "rpo-missed", "gravity": "critical", "machine": EVIL, "says": "the newest point is 3 h old",
            "remedy": "look whether its source still sends: virsh blockjob", "since": NOW }],
    }))
    .unwrap()
}

fn local() -> Local {
    let print: Vec<String> = (0..32).map(|byte| format!("{byte:02X}")).collect();
    Local {
        at: NOW,
        uptime: Duration::from_secs(4000),
        hostname: "dr1".to_owned(),
        fingerprint: Ok(print.join(":")),
        problems: Vec::new(),
        token: None,
    }
}

/// A console that has heard everything, or what `hear` says.
struct Console {
    state: State,
    begin: Instant,
    now: Instant,
}

impl Console {
    fn new() -> Console {
        let now = Instant::now();
        Console { state: State::new(now), begin: now, now }
    }

    fn usual() -> Console {
        let mut console = Console::new();
        console.hear(News::Local(Box::new(local())));
        console.hear(News::Machine(Ok(Box::new(machine()))));
        console.hear(News::Protection(Ok(Box::new(protection()))));
        console
    }

    fn hear(&mut self, news: News) {
        self.state.news(news, self.now);
    }

    fn key(&mut self, key: Key) -> Option<Order> {
        self.state.key(key, self.now)
    }

    fn typed(&mut self, text: &str) {
        for letter in text.chars() {
            assert_eq!(self.key(Key::Char(letter)), None);
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.state.tick(self.now);
    }

    fn at(&mut self, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut most = 0;
        terminal.draw(|frame| most = view::draw(frame, &self.state, self.now)).unwrap();
        self.state.scrolled_at_most(most);
        let drawn = terminal.backend().to_string();
        assert!(!drawn.chars().any(|letter| letter.is_control() && letter != '\n'), "{drawn:?}");
        let own = drawn.chars().filter(|letter| !letter.is_ascii() && *letter != '\u{fc}').count();
        assert_eq!(own, 0, "{drawn}");
        drawn
    }

    fn drawn(&mut self) -> String {
        self.at(80, 24)
    }

    fn says(&mut self, words: &str) {
        let drawn = self.drawn();
        assert!(drawn.contains(words), "{words}:\n{drawn}");
    }
}

#[test]
fn the_first_frame_needs_nobody() {
    let mut console = Console::new();
    let drawn = console.drawn();
    assert!(drawn.contains(&format!("landfall {}", env!("CARGO_PKG_VERSION"))) && drawn.contains("Status"));
    insta::assert_snapshot!("starting", drawn);
}

#[test]
fn the_status_says_what_is() {
    insta::assert_snapshot!("status", Console::usual().drawn());
}

#[test]
fn what_cannot_be_asked_is_said_where_it_would_stand() {
    let mut console = Console::new();
    let mut local = local();
    local.fingerprint =
        Err(Problem::new("the authority is not made yet", "it is made at the end of the start"));
    local.problems = vec![Problem::new("there is no data disk", "Attach an empty disk to this machine.")];
    console.hear(News::Local(Box::new(local.clone())));
    console.hear(News::Machine(Err(Problem::new(
        "the helper cannot be asked: No such file",
        "see systemctl status",
    ))));
    console.hear(News::Protection(Err(Problem::new("no service answers", "start it"))));
    insta::assert_snapshot!("alone", console.drawn());
    // Not a word of alarm while everything is still on its way up.
    console.hear(News::Local(Box::new(Local { uptime: Duration::from_secs(30), ..local })));
    console.says("Starting: the service is not up yet");
    // Nothing can be set then, and all screens say why.
    for key in ['n', 't', 'd', 'k'] {
        console.key(Key::Char(key));
        console.says("cannot be asked");
        for key in [Key::Enter, Key::Char('1'), Key::Char('2'), Key::Down] {
            assert_eq!(console.key(key), None);
            assert!(matches!(console.state.over, Over::Nothing));
        }
    }
}

#[test]
fn what_is_old_is_said_to_be_old() {
    let mut console = Console::usual();
    console.now += Duration::from_secs(40);
    console.hear(News::Machine(Ok(Box::new(machine()))));
    console.says("what the service says is 40 s old");
    assert!(!console.drawn().contains("what the helper says"));
}

#[test]
fn each_screen_is_drawn() {
    for (key, name) in
        [('n', "network"), ('t', "time"), ('d', "disks"), ('k', "keys"), ('b', "bundle"), ('p', "power")]
    {
        let mut console = Console::usual();
        assert_eq!(console.key(Key::Char(key)), None);
        insta::assert_snapshot!(name, console.drawn());
        console.key(Key::Escape);
        assert_eq!(console.state.screen, Screen::Status);
    }
    let mut console = Console::usual();
    assert_eq!(console.key(Key::Function(7)), Some(Order::Log));
    console.says("is being read");
    let lines = (1..=200).map(|number| format!("line {number} {EVIL}")).collect();
    console.hear(News::Log(Ok(lines)));
    console.says("line 200");
    console.key(Key::Home);
    console.says("line 1 ");
    console.key(Key::PageDown);
    console.says("line 16 ");
    console.hear(News::Log(Err(Problem::new("cannot be run", ""))));
    console.says("cannot be read");
}

#[test]
fn the_first_token_is_shown_until_it_is_noted() {
    let mut console = Console::usual();
    let with_token = || {
        let mut local = local();
        local.token = Some(Zeroizing::new(
            "lf_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".to_owned(),
        ));
        News::Local(Box::new(local))
    };
    console.hear(with_token());
    insta::assert_snapshot!("welcome", console.at(80, 28));
    // It does not stand in the way of the network, and comes back.
    console.key(Key::Char('n'));
    console.says("W Welcome");
    console.wait(301);
    assert_eq!(console.state.screen, Screen::Welcome);
    // Whoever presses Enter, blindly or twice, is asked, and the token stays.
    for no in [Key::Enter, Key::Escape, Key::Char('n')] {
        assert_eq!(console.key(Key::Enter), None);
        console.says("it is not shown again");
        console.says("landfall token add NAME --role admin");
        assert_eq!(console.key(no), None);
        console.says("lf_0123");
    }
    console.key(Key::Enter);
    assert_eq!(console.key(Key::Char('y')), Some(Order::Change(Request::ForgetToken {})));
    console.hear(News::Done(Err(Problem::new("the helper cannot be asked", "wait"))));
    console.says("Not done");
    console.key(Key::Enter);
    console.says("lf_0123");
    console.key(Key::Enter);
    assert_eq!(console.key(Key::Char('y')), Some(Order::Change(Request::ForgetToken {})));
    console.hear(News::Done(Ok(Vec::new())));
    console.hear(with_token());
    // How one comes to another.
    console.says("ssh root@ADDRESS landfall token add NAME --role admin");
    assert!(!console.drawn().contains("lf_0123"));
    console.key(Key::Enter);
    let drawn = console.drawn();
    assert!(
        !drawn.contains("lf_0123") && !drawn.contains("W Welcome") && console.state.screen == Screen::Status
    );
    console.key(Key::Char('w'));
    assert_eq!(console.state.screen, Screen::Status);
}

#[test]
fn a_card_gets_an_address_after_a_question() {
    let mut console = Console::usual();
    console.key(Key::Char('n'));
    console.key(Key::Enter);
    console.key(Key::Left);
    console.key(Key::Next);
    // What is wrong is said by the settings themselves, and nothing is lost.
    console.typed("10.0.0.5");
    console.key(Key::Enter);
    console.says("is no address with the length of its prefix");
    console.typed("/24");
    console.key(Key::Next);
    console.typed("10.1.0.1");
    console.key(Key::Enter);
    console.says("the gateway 10.1.0.1 is not in 10.0.0.0/24");
    insta::assert_snapshot!("card", console.drawn());
    console.key(Key::Kill);
    console.typed("10.0.0.1");
    console.key(Key::Next);
    console.typed("10.0.0.53, 10.0.0.54");
    console.key(Key::Enter);
    insta::assert_snapshot!("card-asked", console.drawn());
    // Only y is yes, and no leads back to what was typed.
    console.key(Key::Char('x'));
    console.key(Key::Enter);
    console.says("10.0.0.53, 10.0.0.54");
    console.key(Key::Enter);
    let Some(Order::Change(Request::SetNetwork { nic: Some(nics), dns: Some(dns), search: None })) =
        console.key(Key::Char('y'))
    else {
        panic!("{}", console.drawn())
    };
    let set: Vec<_> =
        nics.iter().map(|nic| (nic.card.to_string(), nic.dhcp.word(), nic.addresses.len())).collect();
    // The other card had DHCP, and keeps it.
    assert_eq!(set, [("52:54:00:12:34:57".to_owned(), "yes", 0), ("52:54:00:12:34:56".to_owned(), "no", 1)]);
    assert_eq!(dns.len(), 2);
    console.says("Please wait");
    console.hear(News::Done(Err(Problem::new("it is kept, but not in effect", "restart"))));
    console.says("it is kept, but not in effect");
    console.key(Key::Enter);
    console.says("10.0.0.53, 10.0.0.54");
    console.key(Key::Escape);
    // A card that is set back to DHCP loses its addresses, also where they are still typed.
    let mut other = machine();
    other.settings.nic = Some(nics);
    other.typed = other.settings.clone();
    console.hear(News::Machine(Ok(Box::new(other))));
    console.key(Key::Enter);
    console.key(Key::Right);
    console.key(Key::Enter);
    let Some(Order::Change(Request::SetNetwork { nic: Some(nics), .. })) = console.key(Key::Char('y')) else {
        panic!("{}", console.drawn())
    };
    assert!(
        nics.iter()
            .all(|nic| nic.addresses.is_empty() && nic.dhcp.word() == "yes" && nic.gateways.is_empty())
    );
}

#[test]
fn names_times_and_keys_are_checked_before_they_are_sent() {
    let mut console = Console::usual();
    let mut change = |keys: &str, bad: &str, says: &str, good: &str| {
        let mut letters = keys.chars();
        console.key(Key::Char(letters.next().unwrap()));
        console.key(Key::Char(letters.next().unwrap()));
        console.key(Key::Kill);
        console.typed(bad);
        console.key(Key::Enter);
        console.says(says);
        console.key(Key::Kill);
        console.typed(good);
        console.key(Key::Enter);
        console.says("Do it? y/N");
        let order = console.key(Key::Char('y'));
        console.hear(News::Done(Ok(vec!["all is well".to_owned()])));
        console.says("all is well");
        console.key(Key::Enter);
        let Some(Order::Change(request)) = order else { panic!("{keys}") };
        // What goes out is what the helper takes.
        Request::parse(&serde_json::to_vec(&request).unwrap()).unwrap()
    };
    let name = change("n1", "a; reboot", "is no host name", "dr2");
    assert_eq!(name, Request::SetHostname { hostname: Some("dr2".parse().unwrap()) });
    let servers = change("t1", "-v", "is no server", "10.0.0.9, ntp.example.org");
    assert!(matches!(servers, Request::SetTime { ntp: Some(servers), utc: None } if servers.len() == 2));
    let clock = change("t2", "yesterday", "is no time", "2026-11-29 14:03:05");
    assert_eq!(clock, Request::SetTime { utc: Some(Moment(1_795_960_985_000)), ntp: None });
    let key =
        change("k1", "command=\"x\" ssh-rsa AAAA", "does not begin with the kind", &format!("{KEY} me"));
    assert!(matches!(key, Request::SetSshKeys { keys: Some(keys) } if keys.len() == 1));
}

#[test]
fn an_empty_field_takes_back_the_servers_of_time() {
    let mut console = Console::usual();
    let mut set = machine();
    set.given_by = Some("NoCloud".to_owned());
    set.typed.ntp = Some(vec!["10.0.0.9".parse().unwrap()]);
    set.settings = set.typed.clone();
    set.time.servers = vec!["10.0.0.9".to_owned()];
    console.hear(News::Machine(Ok(Box::new(set.clone()))));
    console.key(Key::Char('t'));
    console.says("(set here)");
    let mut take_back = |set: Machine, says: &str| {
        console.hear(News::Machine(Ok(Box::new(set))));
        console.key(Key::Char('1'));
        console.says("empty: what the hypervisor gave");
        console.key(Key::Kill);
        console.key(Key::Enter);
        console.says(says);
        let order = console.key(Key::Char('y'));
        assert_eq!(order, Some(Order::Change(Request::SetTime { utc: None, ntp: None })));
        console.hear(News::Done(Ok(Vec::new())));
        console.key(Key::Enter);
    };
    take_back(set.clone(), "10.0.0.9  ->  what the hypervisor gave, else what DHCP names");
    set.given_by = None;
    take_back(set.clone(), "10.0.0.9  ->  what DHCP names");
    // None at all, as an older console has kept it.
    set.typed.ntp = Some(Vec::new());
    set.settings.ntp = Some(Vec::new());
    take_back(set.clone(), "none  ->  what DHCP names");
    // What holds then is shown, and there is no more to take back.
    set.typed.ntp = None;
    set.time.servers = vec!["10.0.0.1".to_owned()];
    for (given, servers, says) in [
        (Some(vec!["10.0.0.1".parse().unwrap()]), vec!["10.0.0.1".to_owned()], "(given by the hypervisor)"),
        (None, vec!["10.0.0.1".to_owned()], "(named by DHCP)"),
        (None, Vec::new(), "DHCP names none"),
    ] {
        set.settings.ntp = given;
        set.time.servers = servers;
        console.hear(News::Machine(Ok(Box::new(set.clone()))));
        console.says(says);
        console.key(Key::Char('1'));
        console.key(Key::Kill);
        console.key(Key::Enter);
        console.says("nothing would change");
        console.key(Key::Escape);
    }
}

#[test]
fn a_disk_with_a_vault_says_what_becomes_of_it() {
    for (is_whole, row, says, doing) in [
        (true, "has a vault, which is not used", "it is used as it is", "The vault on sdc is taken"),
        (false, "was not made to its end", "it is made anew", "A file system is made on sdc"),
    ] {
        let mut console = Console::usual();
        let mut all = machine();
        all.disks[2] =
            DiskStatus { has_vault: true, is_whole, ..disk("sdc", 500, DiskRole::Other, &["gpt", "xfs"]) };
        console.hear(News::Machine(Ok(Box::new(all))));
        console.key(Key::Char('d'));
        console.says(row);
        console.key(Key::Down);
        console.key(Key::Down);
        console.key(Key::Enter);
        console.says(says);
        console.typed("sdc");
        console.key(Key::Enter);
        console.says("Do it? y/N");
        console.says(says);
        // One that was taken out meanwhile is no longer asked for.
        console.key(Key::Enter);
        let mut less = machine();
        less.disks.remove(2);
        console.hear(News::Machine(Ok(Box::new(less))));
        console.key(Key::Enter);
        console.says("sdc is not there any longer");
        let mut all = machine();
        all.disks[2] = DiskStatus { has_vault: true, is_whole, ..disk("sdc", 500, DiskRole::Other, &[]) };
        console.hear(News::Machine(Ok(Box::new(all))));
        console.key(Key::Enter);
        assert!(matches!(console.key(Key::Char('y')), Some(Order::Change(Request::ClaimDisk { .. }))));
        console.says(doing);
    }
}

#[test]
fn a_disk_is_taken_by_its_name_and_never_one_with_content() {
    let mut console = Console::usual();
    console.key(Key::Char('d'));
    for (row, says) in
        ["has the appliance itself", "has the vault already", "", "is not empty: it holds ntfs"]
            .iter()
            .enumerate()
    {
        if row > 0 {
            console.key(Key::Down);
        }
        if says.is_empty() {
            continue;
        }
        console.key(Key::Enter);
        console.says(says);
        assert_eq!(console.key(Key::Char('y')), None);
        console.key(Key::Escape);
    }
    console.key(Key::Up);
    console.key(Key::Enter);
    console.typed("sdd");
    console.key(Key::Enter);
    console.says("is not this disk's name");
    console.key(Key::Backspace);
    console.typed("c");
    console.key(Key::Enter);
    let order = console.key(Key::Char('Y'));
    assert_eq!(
        order,
        Some(Order::Change(Request::ClaimDisk { disk: "sdc".to_owned(), serial: "6000c29sdc".to_owned() }))
    );
    // A second change waits for the first.
    console.key(Key::Escape);
    console.key(Key::Char('1'));
    assert_eq!(console.key(Key::Char('y')), None);
    console.says("another change is under way");
    console.key(Key::Enter);
    // The machine can be taken down all the same, and what becomes of the first is still told.
    for (number, request) in [('2', Request::Restart {}), ('3', Request::PowerOff {})] {
        console.key(Key::Char('p'));
        console.key(Key::Char(number));
        console.says("A CHANGE IS UNDER WAY");
        assert_eq!(console.key(Key::Char('y')), Some(Order::Change(request)));
        console.hear(News::Down(Err(Problem::new("systemctl failed", "try again"))));
        console.says("systemctl failed");
        console.key(Key::Enter);
    }
    console.key(Key::Char('1'));
    console.key(Key::Char('y'));
    console.says("another change is under way");
    console.key(Key::Enter);
    console.hear(News::Done(Ok(vec!["made".to_owned()])));
    console.says("made");
}

#[test]
fn keys_are_taken_out_and_the_machine_goes_down_after_a_question_only() {
    let mut console = Console::usual();
    let mut with_key = machine();
    with_key.settings.ssh_keys = Some(vec![format!("{KEY} gr\u{fc}n").parse().unwrap()]);
    console.hear(News::Machine(Ok(Box::new(with_key))));
    console.key(Key::Char('k'));
    console.says("gr\u{fc}n");
    console.key(Key::Enter);
    console.says("nothing listens for SSH any longer");
    console.key(Key::Escape);
    for (number, request) in
        [('1', Request::RestartService {}), ('2', Request::Restart {}), ('3', Request::PowerOff {})]
    {
        console.key(Key::Char('p'));
        console.key(Key::Char(number));
        for no in [Key::Enter, Key::Escape, Key::Char('n')] {
            assert_eq!(console.key(no), None);
            assert!(matches!(console.state.over, Over::Nothing));
            console.key(Key::Char(number));
        }
        let goes_down = request.goes_down();
        assert!(!console.drawn().contains("UNDER WAY"));
        assert_eq!(console.key(Key::Char('y')), Some(Order::Change(request)));
        console.hear(if goes_down { News::Down(Ok(Vec::new())) } else { News::Done(Ok(Vec::new())) });
        console.key(Key::Enter);
    }
}

#[test]
fn whoever_comes_next_finds_the_status() {
    let mut console = Console::usual();
    console.key(Key::Char('n'));
    console.key(Key::Enter);
    console.wait(299);
    assert!(matches!(console.state.over, Over::Form(_)));
    console.wait(1);
    assert!(matches!(console.state.over, Over::Nothing) && console.state.screen == Screen::Status);
    assert!(console.begin < console.now);
}

#[test]
fn the_first_key_after_a_while_is_known() {
    // Whoever attaches to a serial line sees nothing of what was drawn before.
    let mut console = Console::usual();
    console.wait(9);
    assert!(!console.state.is_quiet(console.now));
    console.wait(1);
    assert!(console.state.is_quiet(console.now));
    console.key(Key::Char('n'));
    assert!(!console.state.is_quiet(console.now) && console.state.screen == Screen::Network);
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        4 => prop::sample::select("sntdkblpwy123 aA/.:0-".chars().collect::<Vec<_>>()).prop_map(Key::Char),
        1 => any::<char>().prop_map(Key::Char),
        1 => (0u8..12).prop_map(Key::Function),
        4 => prop::sample::select(vec![
            Key::Enter, Key::Escape, Key::Next, Key::Previous, Key::Up, Key::Down, Key::Left, Key::Right, Key::Home,
            Key::End, Key::PageUp, Key::PageDown, Key::Backspace, Key::Delete, Key::Kill,
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_keys_panic_at_any_size(keys in proptest::collection::vec(any_key(), 0..60), width in 1u16..140, height in 1u16..50) {
        let mut console = Console::usual();
        for key in keys {
            let _ = console.key(key);
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| _ = view::draw(frame, &console.state, console.now)).unwrap();
        }
    }
}
