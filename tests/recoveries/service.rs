//! Recoveries while the service works on the vault: nobody names the vault, and the machine's disks lie over the service's
//! socket.

use super::*;
use crate::receive::output;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The real program, with the vault of a guest.
struct Service {
    protected: Protected,
    child: Option<Child>,
}

impl Service {
    fn start(&mut self) {
        let dir = self.protected.dir.path();
        let file = dir.join("landfall.toml");
        // The vault is looked at, and not written to.
        fs::write(&file, "vault = \"vault\"\nsockets = \"s\"\n[protect]\nretention = \"100y every 1s\"\n").unwrap();
        let child = landfall().args(["serve", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
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
    let _alone = crate::boots::alone();
    let Some(protected) = protected() else { return };
    let dir = protected.dir.path().to_owned();
    let points = protected.points;
    let mut service = Service { protected, child: None };
    service.start();
    let inspected = json(&service.landfall().args(["inspect", "point:web01@tag:good"]).output().unwrap());
    assert_eq!(inspected["source"], format!("point:web01@{}", points[0]), "{inspected:#}");
    assert_eq!(inspected["guest"]["distribution"]["value"], "debian");
    // As times are shown, in whole seconds.
    let at = ["recover", "web01", "--at", "2026-11-29 14:03:05", "--mode", "test", "-o"];
    let recovered = done(service.landfall().args(at).arg(dir.join("out")));
    let over = recovered["recovery"]["disks"][0]["over"].as_str().unwrap();
    assert!(over.contains(&format!("scsi0-0%40{}?socket=", points[0])) && over.ends_with("s/points.sock"), "{over}");
    let zone = recovered["findings"].as_array().unwrap().iter().filter(|it| it["id"] == "recovery-point").count();
    assert_eq!(zone, 2, "that UTC was taken is told: {recovered:#}");
    let folder = dir.join("out/web01-test");
    // QEMU reads the chain through the service; what was patched is on top.
    let chain = dir.join("chain.raw");
    output(Command::new("qemu-img").args(["convert", "-O", "raw"]).args([&folder.join("disk0.qcow2"), &chain]));
    let mine = done(service.landfall().args(["disk", "info"]).arg(&chain));
    assert_eq!(mine["partitions"]["entries"][0]["start"], inspected["disks"][0]["partitions"]["entries"][0]["start"]);
    // A service that was killed knows what is needed.
    service.kill();
    service.start();
    let delete = service.landfall().args(["points", "delete", "web01", &points[0].to_string()]).output().unwrap();
    assert_eq!(delete.status.code(), Some(1));
    assert!(text(&delete).contains("web01-test") || text(&delete).contains("has the name"), "{}", text(&delete));
    let removed = done(service.landfall().args(["recover", "remove"]).arg(&folder));
    assert_eq!(removed["outcome"], "removed");
    service.kill();
    let (vault, _) = Vault::open(&service.protected.vault()).unwrap();
    assert!(vault.machine(&name()).unwrap().holds().all().is_empty());
    crate::cli::schemas::check(&[("recover", recovered), ("recover-end", removed)]);
}
