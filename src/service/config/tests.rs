//! What the service's file may say, and what is refused.

use super::*;
use crate::receive::subject::Subject;
use landfall_image::Bytes;

fn parse(text: &str) -> Result<Config> {
    Config::parse(text, Path::new("/etc/landfall"))
}

#[test]
fn an_empty_file_is_a_configuration_and_each_part_counts() {
    let config = parse("").unwrap();
    assert_eq!(config.vault, Path::new("/var/lib/landfall/vault"));
    assert_eq!((config.protect.checkpoint.as_secs(), config.protect.rpo.as_secs()), (5, 15));
    assert!(config.api.is_none() && config.receive.listen.is_empty());
    let config = parse(
        r#"
        vault = "v"
        [receive]
        listen = ["[::]:10809"]
        certificate = "r.pem"
        key = "r.key"
        clients_ca = "ca.pem"
        client = [{ subject = "CN=hv1,O=Example", machines = ["web*"] }]
        [api]
        listen = ["0.0.0.0:8470"]
        certificate = "a.pem"
        key = "/a.key"
        viewer = "root"
        [protect]
        checkpoint = "10s"
        [machine.db01]
        retention = "7d every 10s"
        rpo = "1m"
        [group.shop]
        machines = ["web01", "db01"]
        [alarm]
        webhook = "https://example.org/hook"
        [[send]]
        to = "https://dr2:8470"
        ca = "dr2.pem"
        certificate = "this.pem"
        key = "this.key"
        machines = ["web*"]
        every = "15m"
        limit = "20MiB/s"
        "#,
    )
    .unwrap();
    assert_eq!(config.vault, Path::new("/etc/landfall/v"));
    assert_eq!((config.viewer, parse("[api]\nviewer = \"992\"").unwrap().viewer), (Some(0), Some(992)));
    assert_eq!(config.api.as_ref().unwrap().certificate, Path::new("/etc/landfall/a.pem"));
    let [web, db] = ["web01", "db01"].map(|name| name.parse::<Name>().unwrap());
    assert_eq!((config.protect(&web).rpo.as_secs(), config.protect(&db).rpo.as_secs()), (30, 60));
    // What is said of a machine counts for its deltas, too.
    let hours = |name| config.protect(name).delta_rpo.as_secs() / 60;
    assert_eq!((hours(&web), hours(&db)), (26 * 60, 1));
    assert_eq!(config.group(&db).map(Name::as_str), Some("shop"));
    let [sends] = config.sends.as_slice() else { panic!("{:?}", config.sends) };
    assert!(sends.is_for(&web) && !sends.is_for(&db));
    assert_eq!((sends.every.as_secs(), sends.late.as_secs()), (900, 2700));
    assert_eq!(sends.limit.as_ref().unwrap().per_second(), Bytes::mib(20));
    assert_eq!(sends.tls.key.as_deref(), Some(Path::new("/etc/landfall/this.key")));
    let peer = |subject: &str| Peer {
        place: crate::receive::Place::Network("192.0.2.1:5".parse().unwrap()),
        certificate: Some(Certificate {
            subject: subject.to_owned(),
            names: Subject::parse(subject).unwrap(),
            sha256: [0; 32],
            key: [0; 32],
            rights: Rights { send: vec!["db*".into()], recover: vec!["web01".into()] },
        }),
    };
    assert!(config.may_write(&peer("CN=hv1,O=Example"), &web));
    assert!(config.may_write(&peer("O=Example, CN=hv1"), &web));
    assert!(!config.may_write(&peer("CN=hv1,O=Example"), &db));
    assert!(!config.may_write(&peer("CN=hv2,O=Example"), &web));
    // What a certificate says itself counts where the authority hands out nothing else; a rule of the file counts besides.
    assert!(!config.may_recover(&peer("CN=hv1,O=Example"), &web));
    let own = Config { authority: Some(Authority { certificate: "a".into(), key: "b".into() }), ..config };
    assert!(own.may_write(&peer("CN=hv1,O=Example"), &db) && own.may_write(&peer("CN=hv1,O=Example"), &web));
    assert!(own.may_write(&peer("CN=hv2,O=Example"), &db) && !own.may_write(&peer("CN=hv2,O=Example"), &web));
    assert!(own.may_recover(&peer("CN=hv2,O=Example"), &web));
    assert!(!own.may_recover(&peer("CN=hv2,O=Example"), &db));
}

#[test]
fn what_cannot_be_used_is_refused_with_its_line_and_a_remedy() {
    for (text, says) in [
        ("volt = 1", "line 1"),
        ("\n[receive]\nlisten = [\"10809\"]", "line 3"),
        ("[receive]\nlisten = [\"0.0.0.0:10809\"]", "could write to every disk"),
        ("[receive]\nlisten = [\"127.0.0.1:1\"]", "everybody on this machine"),
        ("[api]\nlisten = [\"[::]:8470\"]", "over TLS only"),
        ("[protect]\ncheckpoint = \"0s\"", "line 2"),
        ("[protect]\ncheckpoint = \"1m\"\nrpo = \"5s\"", "line 3"),
        ("[protect]\nretention = \"24h\"", "no rule"),
        ("[machine.\"../x\"]\n", "cannot be the name"),
        ("[group.a]\nmachines = [\"x\"]\n[group.b]\nmachines = [\"x\"]", "already"),
        ("[machine.x]\ncheckpoint = \"1m\"\n[group.a]\nmachines = [\"x\", \"y\"]", "different values"),
        ("[alarm]\nwebhook = \"http://example.org\"", "cannot be sent"),
        ("[alarm]\nwebhook = \"http://127.0.0.1.example.org/\"", "cannot be sent"),
        ("[[folder]]\npath = \"a\"\n[[folder]]\npath = \"a/b\"", "lie in one another"),
        ("vault = \"v\"\n[[folder]]\npath = \"v/drops\"", "line 3"),
        ("[[folder]]\npath = \"a\"\nevery = \"0s\"", "line 3"),
        ("[protect]\ndelta_rpo = \"soon\"", "line 2"),
        ("[upkeep]\nlow = 0", "between 1 and 99"),
        ("[upkeep]\nlow = 5\nscarce = 10", "above"),
        ("[[receive.client]]\nmachines = [\"*\"]", "subject"),
        ("[[send]]\nto = \"ftp://x\"\nevery = \"1m\"", "line 2"),
        ("[[send]]\nto = \"https://x\"\nevery = \"1m\"", "would not know who sends"),
        ("[[send]]\nto = \"https://x\"\nevery = \"0s\"\ntoken_file = \"t\"", "line 3"),
        ("[[send]]\nto = \"https://x\"\nevery = \"1m\"\nca = \"c\"\ncertificate = \"t\"", "without its key"),
        (
            "[api]\nlisten = [\"[::]:8470\"]\ncertificate = \"a\"\nkey = \"b\"\nsenders = \"both\"",
            "whose certificates",
        ),
        ("[authority]\ncertificate = \"a\"\nkey = \"b\"", "another authority"),
        ("[api]\nviewer = \"nobody of that name\"", "line 2"),
        ("[[receive.client]]\nsubject = \"hv1\"\nmachines = [\"*\"]", "line 2"),
        ("[[receive.client]]\nsha256 = \"12\"\nmachines = [\"*\"]", "no SHA-256"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert!(error.hint_text().is_some() || text.starts_with("volt"), "{text}: {error}");
    }
}
