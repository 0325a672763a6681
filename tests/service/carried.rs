//! The verbs of the service as those meet them who have a vault and no service, and who call things as they come to mind.

use super::api::{ROOM, err, landfall, out};
use super::*;
use crate::cli::schemas::check;
use landfall_image::{DiskMut, GuestOffset};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// A site whose vault has a machine with three points, and no service.
fn carried() -> (Site, [u64; 3]) {
    let site = Site::new(ROOM);
    site.protect("web01", &["sda"], 1 << 20);
    let service = Service::open(site.config()).unwrap();
    let name = "web01".parse().unwrap();
    let numbers = [1, 2, 3].map(|fill| {
        let machine = service.machine(&name).unwrap();
        machine.machine().live("sda").unwrap().write_at(GuestOffset(4096), &[fill; 4096]).unwrap();
        service.ready(&name).unwrap().number
    });
    service.vault().close().unwrap();
    (site, numbers)
}

impl Site {
    /// A verb with the vault, while the service that is named elsewhere is none.
    fn with_vault(&self, words: &[&str]) -> Output {
        let vault = self.path("vault");
        let mut all = vec!["--vault", vault.to_str().unwrap()];
        all.extend(words);
        landfall(Path::new("/nonexistent/api.sock"), &all)
    }

    #[track_caller]
    fn carried_verb(&self, words: &[&str]) -> String {
        let output = self.with_vault(words);
        assert!(output.status.success(), "{words:?}: {}{}", out(&output), err(&output));
        out(&output)
    }

    #[track_caller]
    fn carried_document(&self, words: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(words);
        let output = self.with_vault(&all);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{words:?}: {error}: {}", err(&output)))
    }

    #[track_caller]
    fn carried_refusal(&self, words: &[&str]) -> String {
        let output = self.with_vault(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}{}", out(&output), err(&output));
        err(&output)
    }
}

#[test]
fn a_vault_without_a_service_is_looked_at_and_its_points_are_named() {
    let (mut site, numbers) = carried();
    let status = site.with_vault(&["status"]);
    assert!(out(&status).contains("web01"), "{}{}", out(&status), err(&status));
    let one = site.carried_document(&["status", "web01"]);
    assert_eq!(
        (one["machine"]["points"].as_u64(), &one["receive"]),
        (Some(3), &serde_json::json!([])),
        "{one}"
    );
    let nobody = site.with_vault(&["status", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1), "as with other verbs");
    assert!(err(&nobody).contains("no machine \"nobody\""), "{}", err(&nobody));
    let shown = site.carried_document(&["points", "show", &format!("web01@{}", numbers[0])]);
    // Nobody serves it once the verb has ended.
    assert_eq!(shown["disks"][0]["uri"], "", "{shown}");
    assert!(!site.carried_verb(&["points", "show", "web01"]).contains("nbd+unix"));
    let verified = site.carried_document(&["points", "verify", "web01", &numbers[1].to_string()]);
    assert_eq!(verified["verdict"], "matched", "{verified}");
    site.carried_verb(&["points", "tag", "web01", &numbers[0].to_string(), "first"]);
    site.carried_verb(&["points", "delete", "web01", &numbers[1].to_string()]);
    // It counts no longer, though nobody has given its room back yet.
    let listed = site.carried_document(&["points", "list", "web01"]);
    let left: Vec<u64> =
        listed["points"].as_array().unwrap().iter().filter_map(|point| point["number"].as_u64()).collect();
    assert_eq!(left, [numbers[0], numbers[2]]);
    let one = site.carried_document(&["status", "web01"]);
    assert_eq!(one["machine"]["points"], 2);
    check(&[("points", listed), ("point", shown), ("verify", verified), ("protect", one)]);
    // Other verbs see the same.
    let diff = site.path("first.diff");
    let diff = diff.to_str().unwrap();
    let exported = site.carried_document(&["points", "export", "web01@tag:first", "sda", "-o", diff]);
    assert_eq!(exported["point"], numbers[0], "{exported}");
    let gone = format!("web01@{}", numbers[1]);
    site.carried_refusal(&["points", "export", &gone, "sda", "-o", diff, "--replace"]);
    // What a service alone can do is not asked of another one.
    for words in [
        &["protect", "web02", "--disk", "sda=1M"][..],
        &["unprotect", "web01"],
        &["ready", "web01"],
        &["alarms"],
        &["token", "list"],
    ] {
        let refused = site.carried_refusal(words);
        assert!(refused.contains(&format!("landfall {} is for a service", words[0])), "{refused}");
        assert!(refused.contains("leave --vault out"), "{refused}");
    }
    let refused = site.carried_refusal(&["points", "list", "web01", "--service", "/run/x.sock"]);
    assert!(refused.contains("leave one of them out"), "{refused}");
    // One that is not there is not made.
    let absent = site.path("absent");
    let list = ["--vault", absent.to_str().unwrap(), "points", "list", "web01"];
    let refused = landfall(&site.path("sockets/api.sock"), &list);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("is no vault") && !absent.exists(), "{}", err(&refused));
    let refused = landfall(&site.path("sockets/api.sock"), &["--vault", absent.to_str().unwrap(), "status"]);
    assert_eq!(refused.status.code(), Some(2), "nobody knows how it is");

    // A service finds all of it, and is not stepped over.
    site.start();
    assert_eq!(site.document(&["points", "show", "web01", "tag:first"])["point"]["number"], numbers[0]);
    let refused = site.carried_refusal(&["points", "tag", "web01", "latest", "x"]);
    assert!(refused.contains("another process works on this vault"), "{refused}");
    assert_eq!(site.with_vault(&["status"]).status.code(), Some(2));
}

#[test]
fn points_are_named_by_times_as_they_are_shown() {
    let (site, numbers) = carried();
    let points = site.carried_document(&["points", "list", "web01"]);
    let last = points["points"][2]["at"].as_str().unwrap().to_owned();
    // 2026-11-29T14:03:05.123Z
    let (day, second) = (&last[..10], &last[11..19]);
    let number = |words: &[&str]| {
        let document = site.carried_document(&[&["points", "show"], words].concat());
        document["point"]["number"].as_u64().unwrap_or_else(|| panic!("{words:?}: {document}"))
    };
    for at in [
        format!("{day}T{second}Z"),
        format!("{day} {second}"),
        format!("{day} {second} UTC"),
        format!("{day}T{second}"),
        last.clone(),
    ] {
        assert_eq!(number(&["web01", &at]), numbers[2], "{at}");
        assert_eq!(number(&[&format!("web01@{at}")]), numbers[2], "{at}");
    }
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(number(&["web01", "-1s"]), numbers[2]);
    assert_eq!(number(&["web01"]), numbers[2]);
    assert_eq!(number(&["web01@latest", "--quiet"]), numbers[2]);
    let count = |words: &[&str]| {
        let document = site.carried_document(&[&["points", "list", "web01"], words].concat());
        document["points"].as_array().unwrap_or_else(|| panic!("{words:?}: {document}")).len()
    };
    assert_eq!(count(&["--since", "-1h"]), 3);
    assert_eq!(count(&["--until", "-1h"]), 0);
    assert_eq!(count(&["--since", &format!("{day} 00:00"), "--until", &format!("{day} {second}")]), 3);
    let verified = site.carried_document(&["points", "verify", &format!("web01@{}", numbers[0])]);
    assert_eq!(verified["point"], numbers[0]);
    // Where it is not clear what is meant, nothing is done.
    let refused = site.carried_refusal(&["points", "delete", "web01", "latest"]);
    assert!(refused.contains(&format!("latest is point {}", numbers[2])), "{refused}");
    assert!(refused.contains("keeps its newest point"), "{refused}");
    let refused = site.carried_refusal(&["points", "delete", &format!("web01@{day} {second}")]);
    assert!(refused.contains(&format!("landfall points delete web01 {}", numbers[2])), "{refused}");
    let refused = site.carried_refusal(&["points", "tag", "web01", "7"]);
    assert!(refused.contains("which name the point is to get"), "{refused}");
    let refused = site.carried_refusal(&["points", "tag", "web01", "--remove"]);
    assert!(refused.contains("which point of web01"), "{refused}");
    let refused = site.carried_refusal(&["points", "show", "web01", "yesterday"]);
    assert!(refused.contains("-15m"), "{refused}");
    site.carried_verb(&["points", "delete", &format!("web01@{}", numbers[0])]);
    assert_eq!(count(&[]), 2);
}

#[test]
fn a_name_means_one_point_of_a_machine() {
    let (site, numbers) = carried();
    let [first, second, _] = numbers.map(|number| number.to_string());
    site.carried_verb(&["points", "tag", "web01", &first, "good"]);
    let refused = site.carried_refusal(&["points", "tag", "web01", &second, "good"]);
    assert!(refused.contains(&format!("point {first} of web01 has the name \"good\" already")), "{refused}");
    assert!(refused.contains(&format!("landfall points tag web01 {first} --remove")), "{refused}");
    let refused = site.carried_refusal(&["points", "create", "web01", "--tag", "good"]);
    assert!(refused.contains("has the name \"good\" already"), "{refused}");
    // Its own name may be said again, and what it was is told.
    let same = site.carried_document(&["points", "tag", "web01", &first, "good"]);
    assert_eq!(same.get("was"), None, "{same}");
    let other = site.carried_verb(&["points", "tag", &format!("web01@{first}"), "better"]);
    assert!(other.contains("\"better\", which was \"good\""), "{other}");
    let gone = site.carried_document(&["points", "tag", "web01", "tag:better", "--remove"]);
    assert_eq!((&gone["was"], gone["point"].get("tag")), (&Value::from("better"), None), "{gone}");
    check(&[("set-point", same), ("set-point", gone)]);
    site.carried_verb(&["points", "tag", "web01", &second, "good"]);
}

/// Two disks by hand, and then the definition, in which they have other names.
#[test]
fn a_definition_that_calls_the_disks_otherwise_adds_none() {
    let mut site = Site::new(ROOM);
    site.start();
    let definition = site.path("web01.xml");
    std::fs::write(&definition, super::api::DOMAIN).unwrap();
    let definition = definition.to_str().unwrap();
    let run = |words: &[&str]| landfall(&site.path("sockets/api.sock"), words);
    let disks = || -> Vec<String> {
        let status = site.document(&["status", "web05"]);
        let disks = status["machine"]["disks"].as_array().unwrap();
        disks.iter().map(|disk| disk["name"].as_str().unwrap().to_owned()).collect()
    };
    site.verb(&["protect", "web05", "--disk", "sda=4M", "--disk", "sdb=8M"]);
    // What is wrong is told with what can be typed.
    let begin = Instant::now();
    let remedy = loop {
        let alarms = site.document(&["alarms"]);
        let needed = alarms["alarms"].as_array().unwrap().iter().find(|alarm| alarm["id"] == "copy-needed");
        if let Some(needed) = needed {
            break needed["remedy"].as_str().unwrap().to_owned();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{alarms}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(remedy.ends_with("landfall ready web05"), "{remedy}");
    for _ in 0..2 {
        let output = run(&["protect", "web05", definition]);
        assert!(output.status.success(), "{}", err(&output));
        assert!(
            err(&output).contains("vda of the definition is sda here")
                && err(&output).contains("vdb of the definition is sdb here"),
            "{}",
            err(&output)
        );
        assert_eq!(disks(), ["sda", "sdb"]);
    }
    site.verb(&["ready", "web05"]);
    let shown = site.document(&["points", "show", "web05"]);
    let defined: Vec<(&str, u64)> = (shown["definition"]["disks"].as_array().unwrap().iter())
        .map(|slot| (slot["file"].as_str().unwrap(), slot["size"].as_u64().unwrap()))
        .collect();
    assert_eq!(defined, [("sda", 4 << 20), ("sdb", 8 << 20)], "{shown}");
    // With one less of them, nobody can tell.
    let refused = run(&["protect", "web05", definition, "--skip-disk", "vdb"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused).contains("sda (4.0 MiB), sdb (8.0 MiB)") && err(&refused).contains("--as"),
        "{}",
        err(&refused)
    );
    let told = run(&["protect", "web05", definition, "--skip-disk", "vdb", "--as", "vda=sda"]);
    assert!(told.status.success(), "{}", err(&told));
    // One that is new is named.
    site.verb(&["protect", "web06", "--disk", "sda=4M"]);
    let refused = run(&["protect", "web06", definition]);
    assert_eq!(refused.status.code(), Some(1), "{}", out(&refused));
    site.verb(&["protect", "web06", definition, "--disk", "vdb=2M"]);
    let status = site.document(&["status", "web06"]);
    assert_eq!(status["machine"]["disks"].as_array().map(Vec::len), Some(2), "{status}");
    let refused = run(&["protect", "web07", definition, "--as", "vda=sda"]);
    assert!(err(&refused).contains("web07 is not protected yet"), "{}", err(&refused));
}

/// Places that are not there, and what a file says.
#[test]
fn what_is_missing_is_said_as_it_is() {
    let (site, _) = carried();
    let refused = site.carried_refusal(&["send", "web01", "--to", "/missing/folder"]);
    assert!(
        refused.contains("/missing/folder: there is no such folder") && !refused.contains("systemctl"),
        "{refused}"
    );
    let empty = site.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let refused = site.carried_refusal(&["receive", "seal", empty.to_str().unwrap()]);
    assert!(refused.contains("has no file that could be sealed"), "{refused}");
    assert!(std::fs::read_dir(&empty).unwrap().next().is_none(), "no manifest is left");
    let file = site.path("checked.toml");
    let digest = "ab".repeat(32);
    let text = format!(
        "vault = \"vault\"\n[alarm]\nwebhook = \"http://127.0.0.1:9/alarms\"\n\
         [[receive.client]]\nsubject = \"CN=esx01\"\nmachines = [\"web*\"]\n\
         [[receive.client]]\nsha256 = \"{digest}\"\nmachines = [\"db01\", \"db02\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let words = ["serve", "--check", "--config", file.to_str().unwrap()];
    let said = site.verb(&words);
    assert!(
        said.contains("CN=esx01: writes to web*") && said.contains("http://127.0.0.1:9/alarms"),
        "{said}"
    );
    let document = site.document(&words);
    assert_eq!(document["clients"][1]["who"], format!("sha256:{digest}"), "{document}");
    check(&[("serve-check", document)]);
}
