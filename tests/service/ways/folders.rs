//! A folder that the service watches.

use super::*;
use crate::receive::folder::{seal, vmx};

const WATCHED: &str = "[[folder]]\npath = \"drops\"\nevery = \"1s\"\n";

fn site(text: &str) -> Site {
    let site = Site::new(&format!("{ROOM}{text}"));
    std::fs::create_dir(site.path("drops")).unwrap();
    site
}

fn drop_in(site: &Site, folder: &str, content: &[u8]) -> std::path::PathBuf {
    let path = site.path("drops").join(folder);
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("disk.raw"), content).unwrap();
    std::fs::write(path.join("machine.vmx"), vmx("web01", &["disk.vmdk"])).unwrap();
    std::fs::write(
        path.join("disk.vmdk"),
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
             RW {} FLAT \"disk.raw\" 0\nddb.adapterType = \"lsilogic\"\n",
            content.len() / 512
        ),
    )
    .unwrap();
    path
}

/// Sealed by being renamed, and by a manifest; what is refused is an alarm until it is mended.
#[test]
fn drops_become_points_and_what_is_refused_an_alarm() {
    let mut site = site(WATCHED);
    let check_says = site.verb(&["serve", "--check", "--config", text(&site.path("landfall.toml"))]);
    assert!(check_says.contains("folder ") && check_says.contains("every 1s"), "{check_says}");
    site.start();
    // It is not complete before it has its name.
    let content = noise(1, 2 << 20);
    let partial = drop_in(&site, "web01.partial", &content);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(site.document(&["status"])["machines"].as_array().unwrap().is_empty());
    std::fs::rename(&partial, site.path("drops/web01")).unwrap();
    site.until("the first drop", || site.document(&["status"])["machines"][0]["points"] == 1);
    assert!(site.exported("web01", "scsi0-0") == content);
    let status = site.document(&["status", "web01"]);
    assert_eq!(
        (status["machine"]["defined"].as_bool(), status["machine"]["disks"][0]["delta"]["way"].as_str()),
        (Some(true), Some("drop")),
        "{status}"
    );
    assert!(site.path("drops/.done/web01").is_dir());
    assert_eq!(site.status(), Some(0), "{}", site.verb(&["alarms"]));
    // By a manifest, one of whose files is damaged.
    let content = noise(2, 2 << 20);
    let folder = drop_in(&site, "web01.partial", &content);
    seal(&folder);
    let mut damaged = content.clone();
    damaged[1 << 20] ^= 1;
    std::fs::write(folder.join("disk.raw"), &damaged).unwrap();
    std::fs::rename(&folder, site.path("drops/web01")).unwrap();
    site.until("an alarm", || site.has_alarm("drop-refused"));
    let alarms = site.alarms();
    assert_eq!((alarms[0]["machine"].as_str(), alarms.len()), (Some("web01"), 1), "{alarms:?}");
    assert!(alarms[0]["says"].as_str().unwrap().contains("disk.raw was damaged on its way"), "{alarms:?}");
    assert!(alarms[0]["remedy"].as_str().unwrap().contains("Copy the file again"), "{alarms:?}");
    assert!(site.path("drops/web01/REFUSED.txt").is_file());
    // By hand, with the exit code of what is refused.
    let looked = site.run(&["receive", "folder", text(&site.path("drops"))]);
    assert_eq!(looked.status.code(), Some(1), "{}{}", out(&looked), err(&looked));
    assert!(out(&looked).contains("REFUSED: web01"), "{}", out(&looked));
    // Mended, it is taken, and the alarm is over.
    std::fs::write(site.path("drops/web01/disk.raw"), &content).unwrap();
    site.until("the second drop", || site.document(&["status"])["machines"][0]["points"] == 2);
    site.until("the end of the alarm", || !site.has_alarm("drop-refused"));
    assert!(site.exported("web01", "scsi0-0") == content);
    let history = site.document(&["alarms", "--history"])["history"].to_string();
    assert!(history.contains("ended") && history.contains("drop-refused"), "{history}");
    // Sealed by ours, where it was made, and looked at at once.
    let content = noise(3, 2 << 20);
    let folder = drop_in(&site, "web01.partial", &content);
    let sealed = site.document(&["receive", "seal", text(&folder), "--tag", "by hand"]);
    assert_eq!(sealed["files"].as_object().map(serde_json::Map::len), Some(3), "{sealed}");
    std::fs::rename(&folder, site.path("drops/web01")).unwrap();
    let looked = site.document(&["receive", "folder", text(&site.path("drops"))]);
    check(&[("receive-folder", looked.clone())]);
    site.until("the third drop", || site.document(&["status"])["machines"][0]["points"] == 3);
    assert!(site.verb(&["points", "list", "web01"]).contains("by hand"));
    let other = site.refused(&["receive", "folder", text(&site.path("vault"))]);
    assert!(other.contains("is not watched by the service"), "{other}");
    // The folder goes away, and comes back.
    std::fs::rename(site.path("drops"), site.path("away")).unwrap();
    site.until("an alarm", || site.has_alarm("folder-away"));
    std::fs::rename(site.path("away"), site.path("drops")).unwrap();
    site.until("the end of the alarm", || !site.has_alarm("folder-away"));
    site.stop();
    // Without a service, any folder.
    let vault = site.path("vault");
    let elsewhere = site.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(drop_in(&site, "web02.partial", &content), elsewhere.join("web02")).unwrap();
    let looked = site.document(&["receive", "folder", text(&elsewhere), "--vault", text(&vault), "--keep"]);
    assert_eq!(looked["drops"][0]["became"]["state"], "taken", "{looked}");
    assert!(elsewhere.join("web02/DONE.txt").is_file());
}

/// The service is killed while it takes a drop: after the start it is in the vault, once.
#[test]
fn a_drop_is_taken_once_though_the_service_is_killed() {
    let mut site = site(WATCHED);
    site.start();
    let content = noise(5, 48 << 20);
    let partial = drop_in(&site, "web01.partial", &content);
    std::fs::rename(&partial, site.path("drops/web01")).unwrap();
    let begin = Instant::now();
    while !site.left().iter().any(|name| name.ends_with(".batch")) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", site.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    site.kill();
    site.start();
    site.until("the drop", || site.path("drops/.done/web01").is_dir());
    assert_eq!(site.points_of("web01").len(), 1, "{}", site.log());
    assert!(site.left().is_empty(), "{:?}", site.left());
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let point = machine.points().unwrap()[0].sequence;
    assert!(of_point(&machine.at(point).unwrap(), "scsi0-0") == content);
}
