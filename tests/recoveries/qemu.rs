//! A recovered machine run by QEMU alone, over a point that a server like the service's gives it.

use super::*;
use crate::receive::Running;
use landfall::hypervisor::{Networks, target};
use landfall::ops::recover::{self, Wanted, ended, there};
use landfall::recovery::{Mode, Patched, Recovery, Step};
use landfall::report::protection::Evidence;
use landfall::vault::role::Promotion;
use landfall_image::Overlay;
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Points as a service has them: in a vault of its own, and over NBD.
struct Service {
    vault: Arc<Vault>,
    running: Running,
    scratch: PathBuf,
    served: Mutex<Vec<String>>,
}

impl Points for Service {
    fn open(&self, name: &Name, at: &At) -> Result<PointSource> {
        let machine = self.vault.machine(name)?;
        let points = machine.points()?;
        let candidates: Vec<Candidate> = points
            .iter()
            .map(|point| Candidate {
                number: point.sequence,
                at: landfall::moment::Moment(point.time),
                tag: point.mark.tag.clone(),
            })
            .collect();
        let number = point::choose(name, &candidates, at)?;
        let chosen = points.iter().find(|point| point.sequence == number).unwrap();
        let socket = PathBuf::from(self.running.path("socket"));
        let source = point::source(name, &machine, chosen, Some(&socket))?;
        for disk in &source.disks {
            let export = point::export(name, &disk.name, number);
            let mut served = self.served.lock().unwrap();
            if !served.contains(&export) {
                let overlay = Overlay::new(Arc::clone(&disk.image.disk), &self.scratch)?;
                self.running.add(&export, Arc::new(overlay), true);
                served.push(export.clone());
            }
        }
        Ok(source)
    }
    fn reach(&self) -> Result<()> {
        Ok(())
    }
    fn hold(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        self.vault.machine(machine)?.hold(number, holder)
    }
    fn release(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        self.vault.machine(machine)?.release(number, holder)
    }
    fn holds(&self) -> Result<Vec<point::HeldPoint>> {
        Ok(point::holds(&self.vault))
    }
    fn promote(&self, machine: &Name, point: u64, holder: &str) -> Result<()> {
        let promotion = Promotion { at: 1, point, holder: holder.to_owned() };
        self.vault.machine(machine)?.roles().change(Some(promotion)).map(drop)
    }

    fn attach(&self, _machine: &Name, _number: u64, _evidence: &Evidence) -> Result<()> {
        Err(landfall_image::Error::refused("nothing is tried here"))
    }
}

fn wanted(mode: Mode) -> Wanted {
    Wanted {
        point: point::PointName { machine: name(), at: At::Tag("good".into()) },
        target: target("kvm").unwrap(),
        mode,
        name: None,
        networks: Networks::default(),
        guest: Default::default(),
        register: None,
        new_uuid: false,
        emulated: false,
        serve: false,
        source_runs: false,
    }
}

/// The machine, run by its own script.
struct Machine {
    qemu: Child,
    seen: Arc<Mutex<String>>,
}

impl Machine {
    fn start(folder: &Path) -> Machine {
        let mut qemu = Command::new(folder.join("qemu.sh"))
            .env("ACCEL", "tcg")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut out = qemu.stdout.take().unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let tell = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(len @ 1..) = out.read(&mut buf) {
                tell.lock().unwrap().push_str(&String::from_utf8_lossy(&buf[..len]));
            }
        });
        Machine { qemu, seen }
    }

    fn wait_for(&mut self, word: &str) {
        let deadline = Instant::now() + Duration::from_secs(900);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.contains(word) {
                return;
            }
            let ended = self.qemu.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no {word:?} ({ended:?}): {seen}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// As a loss of power of the host.
    fn kill(&mut self) {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn qemu_img(args: &[&str], path: &Path) -> String {
    let output = Command::new("qemu-img").args(args).arg(path).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Boots from its point, is killed, boots again with what it wrote, and is kept: all while the point stays what it was.
#[test]
fn a_recovered_machine_boots_survives_a_kill_and_is_kept() {
    let _place = crate::boots::place();
    let Some(protected) = protected() else { return };
    let before = digest(&protected.vault(), protected.points[0]);
    let (vault, _) = Vault::open(&protected.vault()).unwrap();
    let service = Arc::new(Service {
        vault: Arc::new(vault),
        running: Running::start(),
        scratch: protected.dir.path().to_owned(),
        served: Mutex::default(),
    });
    let context = context(protected.dir.path(), Some(service.clone()));
    let out = protected.dir.path().join("out");
    // Patched ahead, once, whatever it is for.
    let prepared = recover::prepare(&context, &wanted(Mode::Test), &out).unwrap();
    let twice = recover::prepare(&context, &wanted(Mode::Live), &out).unwrap();
    assert!(!prepared.was_there && twice.was_there && prepared.folder == twice.folder);
    let done = recover::recover(&context, &wanted(Mode::Live), &out).unwrap();
    assert!(done.serving.is_none() && done.report.was_prepared && done.inspected.is_none());
    let folder = PathBuf::from(&done.report.folder);
    assert_eq!(names(&out), [".prepared", "web01"]);
    assert_eq!(there::newest_prepared(None, &out, &name(), "kvm").unwrap(), protected.points[0]);
    // As a service holds it, it is found from any folder.
    let place = PathBuf::from(&prepared.folder);
    let elsewhere = protected.dir.path().join("elsewhere");
    let points = context.points.as_deref();
    assert!(there::newest_prepared(points, &elsewhere, &name(), "kvm").is_err());
    service.hold(&name(), protected.points[0], &prepared.folder).unwrap();
    assert_eq!(there::newest_prepared(points, &elsewhere, &name(), "kvm").unwrap(), protected.points[0]);
    let other = recover::recover(&context, &wanted(Mode::Test), &elsewhere).unwrap();
    assert!(other.report.was_prepared, "{:?}", other.report);
    // What was made there is found by its name, as long as it holds its point.
    let named = Path::new("web01-test");
    assert_eq!(there::find(points, named, &out).unwrap(), PathBuf::from(&other.report.folder));
    ended::remove(&context, &there::find(points, named, &out).unwrap()).unwrap();
    assert_eq!(there::find(points, named, &out).unwrap(), out.join(named));
    service.release(&name(), protected.points[0], &prepared.folder).unwrap();
    // What was prepared is wanted no more; the recovery has its own.
    Patched::read(&place).unwrap().remove(&place).unwrap();
    assert!(there::newest_prepared(None, &out, &name(), "kvm").unwrap_err().hint_text().is_some());
    assert!(names(&out.join(".prepared")).is_empty());
    assert_eq!(
        names(&folder),
        ["disk0.qcow2", "domain.xml", "inspected.json", "qemu.sh", "recovery.json", "report.json"]
    );
    let delta = folder.join("disk0.qcow2");
    let written = done.report.written_disks[0].data;
    assert!(written < Bytes::mib(400) && written.0 > 0, "{written}");
    assert!(qemu_img(&["check"], &delta).contains("No errors"));
    let holds: Vec<u64> = service.vault.machine(&name()).unwrap().holds().points().into_iter().collect();
    assert_eq!(holds, [protected.points[0]]);
    // The same call finds it there.
    let again = recover::recover(&context, &wanted(Mode::Live), &out).unwrap();
    assert!(again.inspected.is_none() && again.report.recovery == done.report.recovery);

    let mut machine = Machine::start(&folder);
    machine.wait_for("login:");
    // Nobody takes its disks while it runs.
    let error = ended::commit(&context, &folder, false).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    // What was refused changes nothing for its source.
    let role = || service.vault.machine(&name()).unwrap().roles().now();
    assert_eq!(role().promoted, None);
    let error = ended::rollback(&context, &folder).unwrap_err();
    assert!(error.to_string().contains("in use") && delta.exists(), "{error}");
    machine.kill();
    let grown = fs::metadata(&delta).unwrap().len();
    assert!(grown > written.0, "it wrote into its delta");
    // A leak is room that is lost until a repair, and no damage.
    let check = Command::new("qemu-img").args(["check", "--output=json"]).arg(&delta).output().unwrap();
    assert!(json(&check).get("corruptions").is_none(), "{}", text(&check));
    let mut machine = Machine::start(&folder);
    machine.wait_for("login:");
    machine.kill();

    // What the chain holds is what the whole disk holds.
    let chain = protected.dir.path().join("chain.raw");
    let copied =
        Command::new("qemu-img").args(["convert", "-O", "raw"]).args([&delta, &chain]).output().unwrap();
    assert!(copied.status.success(), "{}", text(&copied));
    let kept = ended::commit(&context, &folder, false).unwrap();
    assert_eq!(kept.recovery.unwrap().step, Step::Committed);
    let promoted = role().promoted.unwrap();
    assert_eq!((promoted.point, promoted.holder.as_str()), (protected.points[0], kept.folder.as_str()));
    // Once it is a replica again, to commit what is committed does not change that.
    service.vault.machine(&name()).unwrap().roles().change(None).unwrap();
    ended::commit(&context, &folder, false).unwrap();
    assert_eq!((role().promoted, role().epoch), (None, 3));
    assert!(Recovery::read(&folder).unwrap().disks[0].over.is_none());
    assert!(!fs::read_to_string(folder.join("domain.xml")).unwrap().contains("backingStore"));
    let info: Value = serde_json::from_str(&qemu_img(&["info", "--output=json"], &delta)).unwrap();
    assert!(
        info.get("backing-filename").is_none() && qemu_img(&["check"], &delta).contains("No errors"),
        "{info:#}"
    );
    let compared = Command::new("qemu-img").args(["compare"]).args([&chain, &delta]).output().unwrap();
    assert!(text(&compared).contains("identical"), "{}", text(&compared));
    assert!(service.vault.machine(&name()).unwrap().holds().points().is_empty());
    assert!(ended::rollback(&context, &folder).is_err() && delta.exists());
    drop((context, again, done));
    drop(service);
    assert_eq!(digest(&protected.vault(), protected.points[0]), before, "the point was changed");
}
