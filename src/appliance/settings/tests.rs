use super::*;
use landfall_image::Kind;
use proptest::prelude::*;

/// The wire form of a key that says `kind`.
pub(crate) fn key(kind: &str) -> String {
    use base64::Engine;
    let mut bytes = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(kind.bytes());
    bytes.extend([0, 0, 0, 32]);
    bytes.extend([7; 32]);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn whole() -> String {
    format!(
        "hostname = \"dr1.example.org\"\ntime_zone = \"Europe/Berlin\"\n\
         ssh_keys = [\"ssh-ed25519 {} me\"]\ndns = [\"10.0.0.53\", \"2001:db8::53\"]\nsearch = [\"example.org\"]\n\
         ntp = [\"ntp.example.org\", \"10.0.0.1\"]\n\n[[nic]]\ncard = \"first\"\ndhcp = \"no\"\n\
         addresses = [\"10.0.0.5/24\", \"2001:db8::5/64\"]\ngateways = [\"10.0.0.1\", \"fe80::1\"]\nmtu = 9000\n\n\
         [[nic]]\ncard = \"52:54:00:12:34:56\"\nvlan = 100\ndhcp = \"ipv4\"\n",
        key("ssh-ed25519")
    )
}

#[test]
fn what_is_written_is_read_again() {
    let settings = Settings::parse(&whole()).unwrap();
    let written = settings.to_toml().unwrap();
    assert_eq!(Settings::parse(&written).unwrap(), settings, "{written}");
    let empty = "ssh_keys = []\nnic = []\n";
    assert_eq!(Settings::parse(empty).unwrap().to_toml().unwrap(), empty);
    let bond = "[[nic]]\ncard = \"eth0\"\ndhcp = \"yes\"\nbond = { mode = \"802.3ad\", with = [\"eth1\"] }\n";
    let bond = Settings::parse(bond).unwrap();
    assert_eq!(Settings::parse(&bond.to_toml().unwrap()).unwrap(), bond);
    assert_eq!(settings.nics()[1].title(), "52:54:00:12:34:56, VLAN 100");
    assert_eq!(Settings::parse("").unwrap(), Settings::default());
}

#[test]
fn what_is_said_above_counts_and_an_empty_list_is_said() {
    let typed = Settings::parse("ssh_keys = []\nnic = []\n").unwrap();
    let given = Settings::parse(&whole()).unwrap();
    let both = typed.over(given.clone());
    assert_eq!((both.ssh_keys, both.nic), (Some(Vec::new()), Some(Vec::new())));
    assert_eq!((both.hostname, both.dns), (given.hostname, given.dns));
}

#[test]
fn names_are_what_they_should_be() {
    for name in ["dr1", "DR-1.example.org", &"a".repeat(63)] {
        assert_eq!(name.parse::<HostName>().unwrap().as_str(), name);
    }
    let long = "a.".repeat(32) + "a";
    for name in [
        "",
        "-a",
        "a-",
        "a..b",
        ".a",
        "a b",
        "a_b",
        "ä",
        "10.0.0.1",
        "a\nb",
        "a/b",
        "%H",
        &long,
        &"a".repeat(64),
    ] {
        assert_eq!(name.parse::<HostName>().unwrap_err().kind(), Kind::Refused, "{name:?}");
    }
    assert_eq!("example.org.".parse::<Domain>().unwrap().as_str(), "example.org");
    for server in ["10.0.0.1", "2001:db8::1", "ntp.example.org"] {
        assert_eq!(server.parse::<Server>().unwrap().as_str(), server);
    }
    assert!("0.0.0.0".parse::<Server>().is_err() && "ff02::1".parse::<Server>().is_err());
    for zone in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
        assert_eq!(zone.parse::<TimeZone>().unwrap().as_str(), zone);
    }
    for zone in ["", "/etc/passwd", "../UTC", "Europe/..", "a//b", "a/b/c/d", "a b"] {
        assert!(zone.parse::<TimeZone>().is_err(), "{zone:?}");
    }
    assert_eq!("52-54-0-12-34-AB".parse::<Mac>().unwrap().as_str(), "52:54:00:12:34:ab");
    for mac in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "01:54:00:12:34:56",
        "00:00:00:00:00:00",
        "+2:54:00:12:34:56",
    ] {
        assert!(mac.parse::<Mac>().is_err(), "{mac:?}");
    }
    for card in ["first", "ens192", "enp1s0.5", "52:54:00:12:34:56"] {
        assert_eq!(card.parse::<Card>().unwrap().to_string(), card);
    }
    for card in ["", "lo", "*", "ens*", "-x", "a/b", "a b", "!ens1", "abcdefghijklmnop", "a\nb"] {
        assert!(card.parse::<Card>().is_err(), "{card:?}");
    }
}

#[test]
fn keys_have_no_options_and_are_whole() {
    let content = key("ssh-ed25519");
    let good: SshKey = format!(" ssh-ed25519  {content}  me at home\n").parse().unwrap();
    assert_eq!(good.as_str(), format!("ssh-ed25519 {content} me at home"));
    for (text, why) in [
        (format!("command=\"sh\" ssh-ed25519 {content}"), "kind of a key"),
        (format!("ssh-rsa {content}"), "another kind"),
        (format!("ssh-ed25519 {}", &content[..40]), "cut off"),
        (format!("ssh-ed25519 {}", &content[..16]), "cut off"),
        ("ssh-ed25519".to_owned(), "no key behind"),
        ("ssh-ed25519 !!!!".to_owned(), "base64"),
        (format!("ssh-ed25519 {content}\nssh-rsa x"), "single line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), "private key"),
        (format!("ssh-ed25519 {content} {}", "x".repeat(9000)), "longer"),
        (String::new(), "kind of a key"),
    ] {
        let error = text.parse::<SshKey>().unwrap_err();
        assert!(error.to_string().contains(why), "{text}: {error}");
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let nic = |text: &str| format!("[[nic]]\ncard = \"first\"\n{text}\n");
    for (text, says) in [
        (nic(""), "nic 1 (first): has neither addresses nor DHCP"),
        (nic("addresses = [\"10.0.0.0/24\"]"), "10.0.0.0/24 is the network itself"),
        (nic("addresses = [\"10.0.0.255/24\"]"), "is its broadcast address"),
        (nic("addresses = [\"10.0.0.5/0\"]"), "has no prefix"),
        (nic("addresses = [\"127.0.0.1/8\"]"), "cannot be a card's address"),
        (nic("addresses = [\"10.0.0.5/24\"]\ngateways = [\"10.0.1.1\"]"), "10.0.1.1 is not in 10.0.0.0/24"),
        (nic("addresses = [\"10.0.0.5/24\"]\ngateways = [\"10.0.0.5\"]"), "is this machine itself"),
        (
            nic("addresses = [\"10.0.0.5/24\"]\ngateways = [\"2001:db8::1\"]"),
            "of no use without an IPv6 address",
        ),
        (
            nic("addresses = [\"10.0.0.5/24\"]\ngateways = [\"10.0.0.1\", \"10.0.0.2\"]"),
            "second gateway, 10.0.0.2",
        ),
        (nic("addresses = [\"10.0.0.5/24\"]\ngateways = [\"0.0.0.0\"]"), "no address of a router"),
        (nic("dhcp = \"yes\"\nmtu = 100"), "an MTU of 100 is not between 576 and 9216"),
        (nic("addresses = [\"2001:db8::5/64\"]\nmtu = 1000"), "not between 1280"),
        (nic("dhcp = \"yes\"\nmtu = 9217"), "9217"),
        (nic("dhcp = \"yes\"\nvlan = 0"), "VLAN 0 is none"),
        (nic("dhcp = \"yes\"\nvlan = 4095"), "VLAN 4095 is none"),
        (nic("dhcp = \"yes\"") + &nic("dhcp = \"ipv4\""), "nic 2 (first): first is there twice"),
        (
            nic("addresses = [\"10.0.0.5/24\"]") + &nic("vlan = 5\naddresses = [\"10.0.0.5/16\"]"),
            "10.0.0.5 is there twice",
        ),
        (nic("dhcp = \"yes\"\nbond = { mode = \"802.3ad\", with = [] }"), "a bond of 1 cards"),
        (nic("dhcp = \"yes\"\nbond = { mode = \"802.3ad\", with = [\"first\"] }"), "have to be named"),
        (
            nic("dhcp = \"yes\"\nbond = { mode = \"802.3ad\", with = [\"eth1\"] }")
                + "[[nic]]\ncard = \"eth1\"\ndhcp = \"yes\"\nvlan = 7\n",
            "eth1 is in a bond, and set by itself, too",
        ),
        ("dns = [\"0.0.0.0\"]".to_owned(), "no address of a server"),
        (format!("dns = [{}]", "\"10.0.0.1\",".repeat(17)), "dns has 17 entries; there is room for 16"),
        ("hostnam = \"a\"".to_owned(), "line 1: unknown field `hostnam`"),
        ("hostname = \"a b\"".to_owned(), "is no host name"),
        ("[[nic]]\ncard = \"first\"\naddresses = [\"10.0.0\"]".to_owned(), "line 3"),
    ] {
        let error = Settings::parse(&text).unwrap_err();
        assert!(error.to_string().contains(says), "{text}\n{error}\nwanted: {says}");
        assert_eq!(error.kind(), Kind::Refused);
    }
    // At the edges of what is allowed.
    for text in [
        nic("addresses = [\"10.0.0.0/31\"]"),
        nic("addresses = [\"10.0.0.5/32\"]\ngateways = [\"10.9.0.1\"]\non_link = true"),
        nic("addresses = [\"2001:db8::5/64\"]\ngateways = [\"fe80::1\"]\nmtu = 1280"),
        nic("dhcp = \"yes\"\nvlan = 4094\nmtu = 576"),
        nic("dhcp = \"yes\"") + &nic("vlan = 7\ndhcp = \"yes\""),
        nic("dhcp = \"yes\"\nbond = { mode = \"802.3ad\", with = [\"eth1\"] }")
            + &nic("vlan = 7\ndhcp = \"yes\"\nbond = { mode = \"802.3ad\", with = [\"eth1\"] }"),
    ] {
        Settings::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

proptest! {
    /// No value reaches a file of another program with a line break in it.
    #[test]
    fn nothing_valid_spans_lines(text in "\\PC*|[a-z0-9:./ \n\r\t=\\[\\]-]{0,40}") {
        let valid = [
            text.parse::<HostName>().map(String::from).ok(),
            text.parse::<Domain>().map(String::from).ok(),
            text.parse::<Server>().map(String::from).ok(),
            text.parse::<TimeZone>().map(String::from).ok(),
            text.parse::<Card>().map(String::from).ok(),
        ];
        for one in valid.into_iter().flatten() {
            prop_assert!(!one.contains(['\n', '\r', '=', '[', ']', '*', '%']), "{one:?}");
        }
        let _ = Settings::parse(&text);
    }
}
