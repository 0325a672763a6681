//! Recoveries while the service works on the vault: nobody names the vault, and the machine's disks lie over the service's
//! socket.

use super::*;
use crate::receive::output;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The real program, with the vault of a guest.
struct Service {
    protected: Protected,
    /// In its file, under `[protect]`.
    more: &'static str,
    child: Option<Child>,
}

impl Service {
    fn start(&mut self) {
        let dir = self.protected.dir.path();
        let file = dir.join("landfall.toml");
        // The vault is looked at, and not written to.
        let text = format!(
            "vault = \"vault\"\nsockets = \"s\"\n[protect]\nretention = \"100y every 1s\"\n{}",
            self.more
        );
        fs::write(&file, text).unwrap();
        let child = landfall()
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(dir.join("s/points.sock")).is_err() {
            assert!(Instant::now() < deadline, "the service does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The program, which asks the service.
    fn landfall(&self) -> Command {
        let mut command = landfall();
        command.env("LANDFALL_SERVICE", self.protected.dir.path().join("s/api.sock")).arg("--json");
        command
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_machine_is_recovered_while_the_service_works_on() {
    let _place = crate::boots::place();
    let Some(protected) = protected() else { return };
    let dir = protected.dir.path().to_owned();
    let points = protected.points;
    let mut service = Service { protected, more: "", child: None };
    service.start();
    let inspected = json(&service.landfall().args(["inspect", "point:web01@tag:good"]).output().unwrap());
    assert_eq!(inspected["source"], format!("point:web01@{}", points[0]), "{inspected:#}");
    assert_eq!(inspected["guest"]["distribution"]["value"], "debian");
    // As times are shown, in whole seconds.
    let at = ["recover", "web01", "--at", "2026-11-29 14:03:05", "--mode", "test", "-o"];
    let recovered = done(service.landfall().args(at).arg(dir.join("out")));
    let over = recovered["recovery"]["disks"][0]["over"].as_str().unwrap();
    assert!(
        over.contains(&format!("scsi0-0%40{}?socket=", points[0])) && over.ends_with("s/points.sock"),
        "{over}"
    );
    let zone =
        recovered["findings"].as_array().unwrap().iter().filter(|it| it["id"] == "recovery-point").count();
    assert_eq!(zone, 2, "that UTC was taken is told: {recovered:#}");
    let folder = dir.join("out/web01-test");
    // QEMU reads the chain through the service; what was patched is on top.
    let chain = dir.join("chain.raw");
    output(
        Command::new("qemu-img").args(["convert", "-O", "raw"]).args([&folder.join("disk0.qcow2"), &chain]),
    );
    let mine = done(service.landfall().args(["disk", "info"]).arg(&chain));
    assert_eq!(
        mine["partitions"]["entries"][0]["start"],
        inspected["disks"][0]["partitions"]["entries"][0]["start"]
    );
    // A service that was killed knows what is needed.
    service.kill();
    service.start();
    let delete =
        service.landfall().args(["points", "delete", "web01", &points[0].to_string()]).output().unwrap();
    assert_eq!(delete.status.code(), Some(1));
    assert!(
        text(&delete).contains("web01-test") || text(&delete).contains("has the name"),
        "{}",
        text(&delete)
    );
    let removed = done(service.landfall().args(["recover", "remove"]).arg(&folder));
    assert_eq!(removed["outcome"], "removed");
    service.kill();
    let (vault, _) = Vault::open(&service.protected.vault()).unwrap();
    assert!(vault.machine(&name()).unwrap().holds().all().is_empty());
    crate::cli::schemas::check(&[("recover", recovered), ("recover-end", removed)]);
}

/// The service's own processes: the newest point is patched ahead and booted, and a recovery takes what is there.
#[test]
fn points_are_patched_and_tried_by_the_clock() {
    let _place = crate::boots::place();
    let Some(protected) = protected() else { return };
    let dir = protected.dir.path().to_owned();
    // The newest is one that cannot boot: nobody finds a system in it.
    let more = "prepare = [\"kvm\"]\nprove = \"30d\"\n[drill]\nwithin = \"10s\"\nevidence = \"evidence\"\nrecovered = \"out\"\n";
    let mut service = Service { protected, more, child: None };
    service.start();
    let status = |service: &Service| json(&service.landfall().arg("status").output().unwrap());
    let wait = |service: &Service, what: &str, is_so: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            let status = status(service);
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what}: {status:#}");
            std::thread::sleep(Duration::from_millis(250));
        }
    };
    let has =
        |status: &Value, id: &str| status["alarms"].as_array().unwrap().iter().any(|alarm| alarm["id"] == id);
    let bad =
        wait(&service, "alarms", &|status| has(status, "proof-failed") && has(status, "prepare-failed"));
    assert_eq!(bad["coverage"], serde_json::json!({"scheduled": 1, "proven": 0}));
    let last = &bad["machines"][0]["proof"]["last"];
    assert_eq!(last["point"], service.protected.points[1], "{bad:#}");
    assert_eq!(last["outcome"], "blocked", "{bad:#}");
    let folder = PathBuf::from(last["folder"].as_str().unwrap());
    assert!(folder.starts_with(dir.join("evidence/web01")) && folder.is_dir());
    assert!(bad["machines"][0].get("prepared").is_none());
    let listed = json(&service.landfall().args(["points", "list", "web01"]).output().unwrap());
    let listed = listed["points"].as_array().unwrap();
    assert!(listed[0].get("proof").is_none() && listed[1]["proof"]["outcome"] == last["outcome"]);
    service.kill();

    // One that boots is newer, and the service begins with it.
    let newest = {
        let (vault, _) = Vault::open(&service.protected.vault()).unwrap();
        let machine = vault.machine(&name()).unwrap();
        let good = machine.at(service.protected.points[0]).unwrap();
        let disk = good.disk(*good.state().disks.keys().next().unwrap()).unwrap();
        let mut head = vec![0; 4 << 20];
        disk.read_at(GuestOffset(0), &mut head).unwrap();
        machine.live("scsi0-0").unwrap().write_at(GuestOffset(0), &head).unwrap();
        machine.checkpoint(1_795_960_995_000, &Mark::default()).unwrap()
    };
    service.start();
    let good = wait(&service, "prepared", &|status| status["machines"][0].get("prepared").is_some());
    assert_eq!(good["machines"][0]["prepared"][0]["point"], newest, "{good:#}");
    // What was wrong before the start is looked at for a while before it counts as over.
    wait(&service, "it is over", &|status| !has(status, "prepare-failed"));
    assert_eq!(good["machines"][0]["proof"]["last"]["point"], service.protected.points[1], "evidence stays");
    let at = ["recover", "web01", "--at", "prepared", "--mode", "test", "-o"];
    let recovered = done(service.landfall().args(at).arg(dir.join("out")));
    assert_eq!((&recovered["was_prepared"], &recovered["recovery"]["point"]), (&true.into(), &newest.into()));
    // It is held as long as it is there.
    let holds = json(&service.landfall().args(["points", "show", "web01", "latest"]).output().unwrap());
    assert_eq!(holds["point"]["number"], newest);
    let delete =
        service.landfall().args(["points", "delete", "web01", &newest.to_string()]).output().unwrap();
    assert_eq!(delete.status.code(), Some(1), "{}", text(&delete));
    done(service.landfall().args(["recover", "remove"]).arg(dir.join("out/web01-test")));
    // By hand it is attached all the same; the guest of another hypervisor boots because it is patched, as for a recovery.
    let tried = service
        .landfall()
        .args(["prove", "point:web01@latest", "--timeout", "900", "-o"])
        .arg(dir.join("by hand"))
        .output()
        .unwrap();
    let tried = json(&tried);
    assert_eq!(tried["outcome"], "booted", "{tried:#}");
    // Alarms are looked for once a second.
    let shown = wait(&service, "the alarm ends", &|status| !has(status, "proof-failed"));
    let proof = &shown["machines"][0]["proof"];
    assert_eq!((&proof["last"]["point"], &proof["booted"]), (&newest.into(), &proof["last"]), "{shown:#}");
    assert_eq!(shown["coverage"], serde_json::json!({"scheduled": 1, "proven": 1}));
    service.kill();
    crate::cli::schemas::check(&[("status", bad), ("status", shown), ("recover", recovered)]);
}
