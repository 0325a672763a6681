use super::*;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn present(cards: &[(&str, &str)]) -> Vec<Present> {
    cards.iter().map(|(name, mac)| Present { name: (*name).to_owned(), mac: mac.parse().unwrap() }).collect()
}

fn two() -> Vec<Present> {
    present(&[("ens192", "00:50:56:00:00:0b"), ("ens224", "00:50:56:00:00:0c")])
}

fn shown(settings: &str, present: &[Present]) -> String {
    let units = units(&Settings::parse(settings).unwrap(), present);
    let mut text = String::new();
    for (name, unit) in &units.files {
        let _ = writeln!(text, "== {name}\n{}", unit.strip_prefix(HEAD).unwrap());
    }
    for problem in &units.problems {
        let _ = writeln!(text, "!! {problem}");
    }
    text
}

const STATIC: &str = "[[nic]]\ncard = \"first\"\naddresses = [\"10.0.0.5/24\", \"2001:db8::5/64\"]\n\
    gateways = [\"10.0.0.1\", \"fe80::1\"]\nmtu = 9000\n";
const HOSTED: &str = "[[nic]]\ncard = \"ens224\"\naddresses = [\"192.0.2.5/32\"]\ngateways = [\"198.51.100.1\"]\non_link = true\n";
const VLANS: &str = "[[nic]]\ncard = \"00:50:56:00:00:0b\"\ndhcp = \"ipv4\"\n\
    [[nic]]\ncard = \"00:50:56:00:00:0b\"\nvlan = 100\naddresses = [\"10.1.0.5/24\"]\n\
    [[nic]]\ncard = \"ens224\"\nvlan = 200\ndhcp = \"yes\"\nmtu = 1400\n";
const BOND: &str = "[[nic]]\ncard = \"ens192\"\ndhcp = \"ipv6\"\nadvertisements = true\nbond = { mode = \"802.3ad\", with = [\"00:50:56:00:00:0c\"] }\n\
    [[nic]]\ncard = \"ens192\"\nvlan = 7\naddresses = [\"10.7.0.5/24\"]\nbond = { mode = \"802.3ad\", with = [\"00:50:56:00:00:0c\"] }\n";

#[test]
fn units_are_as_they_were_looked_at() {
    insta::assert_snapshot!("dhcp", shown("", &two()));
    insta::assert_snapshot!("static", shown(STATIC, &two()));
    insta::assert_snapshot!("hosted", shown(HOSTED, &two()));
    insta::assert_snapshot!("vlans", shown(VLANS, &two()));
    insta::assert_snapshot!("bond", shown(BOND, &two()));
}

#[test]
fn a_card_that_is_not_there_is_told_and_the_machine_is_reached_all_the_same() {
    let eth0 = "[[nic]]\ncard = \"eth0\"\naddresses = [\"10.0.0.5/24\"]\n";
    // Clouds say eth0 of the only card.
    let one = units(&Settings::parse(eth0).unwrap(), &two()[..1]);
    assert!(
        one.problems.is_empty()
            && one.files["10-landfall-00.network"].contains("MACAddress=00:50:56:00:00:0b")
    );
    // Of several cards it may be any.
    let several = units(&Settings::parse(eth0).unwrap(), &two());
    assert!(
        several.problems[0]
            .contains("for the card eth0, which is not there; cards: ens192 00:50:56:00:00:0b, ens224")
    );
    assert!(
        several.problems[1].contains("all cards have DHCP")
            && several.files.contains_key("90-landfall-dhcp.network")
    );
    assert!(several.files["10-landfall-00.network"].contains("Name=eth0"));
    // No card at all: nothing can be written for the first.
    let none = units(&Settings::parse(STATIC).unwrap(), &[]);
    assert_eq!(none.files.keys().collect::<Vec<_>>(), ["90-landfall-dhcp.network"]);
    assert_eq!(none.problems, ["no network card is there"]);
    // One of two that are set is there: the other gets nothing that was not asked for.
    let half = format!("{STATIC}[[nic]]\ncard = \"52:54:00:00:00:01\"\ndhcp = \"yes\"\n");
    let half = units(&Settings::parse(&half).unwrap(), &two());
    assert_eq!(
        half.files.keys().collect::<Vec<_>>(),
        ["10-landfall-00.network", "10-landfall-01.network", OTHERS_UNUSED]
    );
    assert_eq!(half.problems.len(), 1);
}

#[test]
fn time_has_the_servers_that_are_set() {
    let text = |settings: &str| time_servers(&Settings::parse(settings).unwrap());
    assert_eq!(text(""), None);
    assert!(
        text("ntp = [\"a.example.org\", \"10.0.0.1\"]")
            .unwrap()
            .ends_with("[Time]\nNTP=a.example.org 10.0.0.1\n")
    );
    assert!(text("ntp = []").unwrap().ends_with("NTP=\nFallbackNTP=\n"));
}

#[test]
fn what_networkd_learnt_is_read() {
    let state = "# This is private data. Do not parse.\nOPER_STATE=routable\n\
        DNS=10.0.0.1 10.0.0.2:53 10.0.0.3:5353 [2001:db8::1]:53%2#dns.example.org fe80::1%ens192 fe80::2%a/b x 0.0.0.0 10.0.0.9#n\n\
        NTP=10.0.0.1 ntp.example.org a;b\nDOMAINS=example.org a_b lan\nROUTE_DOMAINS=~.\n";
    let learnt = Learnt::parse(state);
    assert_eq!(learnt.dns, ["10.0.0.1", "10.0.0.2", "2001:db8::1", "fe80::1%ens192", "10.0.0.9"]);
    assert_eq!(learnt.ntp, ["10.0.0.1", "ntp.example.org"]);
    assert_eq!(learnt.domains.iter().map(|one| one.as_str()).collect::<Vec<_>>(), ["example.org", "lan"]);
    let body = |settings: &str, learnt: &Learnt| {
        resolv_conf(&Settings::parse(settings).unwrap(), learnt).strip_prefix(HEAD).unwrap().to_owned()
    };
    assert_eq!(
        body("", &learnt),
        "search example.org lan\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 2001:db8::1\n\
         # The C library takes 3; left out: fe80::1%ens192 10.0.0.9\n"
    );
    assert_eq!(
        body("dns = [\"2001:db8::53\"]\nsearch = [\"a.example\"]", &learnt),
        "search a.example\nnameserver 2001:db8::53\n"
    );
    assert_eq!(body("", &Learnt::default()), "# No server is known: names do not resolve.\n");
    assert_eq!(Learnt::parse("DNS\n=\nDNS=\n\u{0}"), Learnt::default());
}

/// networkd itself reads the units: it complains of each key, value and section that it does not take.
#[test]
fn networkd_takes_them() {
    const NETWORKD: &str = "/usr/lib/systemd/systemd-networkd";
    if !fs::exists(NETWORKD).unwrap() {
        eprintln!("SKIPPED: {NETWORKD} is not here (Debian: systemd)");
        return;
    }
    let read = |files: &BTreeMap<String, String>| -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        // There is one user in there; networkd wants to become its own.
        let users = tempfile::tempdir().unwrap();
        fs::write(users.path().join("passwd"), "root:x:0:0::/:/bin/sh\nsystemd-network:x:0:0::/:/bin/sh\n")
            .unwrap();
        fs::write(users.path().join("group"), "root:x:0:\nsystemd-network:x:0:\n").unwrap();
        let mut command = Command::new("bwrap");
        command.args([
            "--unshare-user",
            "--unshare-net",
            "--unshare-pid",
            "--uid",
            "0",
            "--gid",
            "0",
            "--die-with-parent",
        ]);
        command.args(["--cap-add", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
        for file in ["passwd", "group"] {
            command.arg("--ro-bind").arg(users.path().join(file)).arg(Path::new("/etc").join(file));
        }
        command
            .args(["--tmpfs", "/run", "--dir", "/run/systemd/netif", "--bind"])
            .arg(folder.path())
            .arg("/run/systemd/network");
        command.args(["--setenv", "SYSTEMD_LOG_LEVEL", "debug", "--setenv", "SYSTEMD_LOG_TARGET", "console"]);
        // It goes on until it is ended: it has read its files by then.
        let out = command.args(["timeout", "1", NETWORKD]).stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
        text.contains("lo: Gained carrier").then_some(text)
    };
    let complaints = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("/run/systemd/network/")).map(str::to_owned).collect()
    };
    let bad =
        BTreeMap::from([("10-x.network".to_owned(), "[Match]\nName=x\n[Network]\nDHPC=yes\n".to_owned())]);
    let Some(text) = read(&bad) else {
        eprintln!("SKIPPED: systemd-networkd cannot be run here (bwrap, Debian: bubblewrap)");
        return;
    };
    assert!(
        complaints(&text).iter().any(|line| line.contains("DHPC")),
        "it says nothing of a wrong key: {text}"
    );
    for settings in ["", STATIC, HOSTED, VLANS, BOND] {
        let units = units(&Settings::parse(settings).unwrap(), &two());
        let text = read(&units.files).unwrap();
        assert_eq!(complaints(&text), Vec::<String>::new(), "{settings}");
    }
}
