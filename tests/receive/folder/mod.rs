//! A watched folder with machines and images as qemu-img, VMware and Hyper-V leave them.

mod deltas;
mod hostile;
mod killed;

use super::{noise, output, program, read_all};
use landfall::event::Silent;
use landfall::machine::Machine;
use landfall::ops::{Context, Settings};
use landfall::receive::digest::Verdict;
use landfall::receive::folder::{Became, Hands, Options, Outcome, Taken, Watcher};
use landfall::receive::incoming::{Finished, Incoming};
use landfall::vault::Vault;
use landfall_image::convert::Cancel;
use landfall_image::nbd::ClientOptions;
use landfall_image::{DiskMut, Gate, GuestOffset};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A vault and a folder that is watched for it.
pub struct Yard {
    root: PathBuf,
    vault: Vault,
    incoming: Incoming,
    watcher: Watcher,
}

pub fn context(scratch: &Path, cancel: &Cancel) -> Context<'static> {
    Context {
        gate: Gate::own_folder(),
        jobs: Some(2),
        rate_limit: None,
        cancel: cancel.clone(),
        scratch: scratch.to_owned(),
        sandbox: Settings::new("/nonexistent".into(), scratch.to_owned()),
        nbd: ClientOptions::default(),
        key: None,
        points: None,
        observer: &Silent,
    }
}

impl Yard {
    /// In a folder that outlives it.
    pub fn open(root: &Path, options: Options) -> Yard {
        fs::create_dir_all(root.join("drops")).unwrap();
        let (vault, _) = Vault::open(&root.join("vault")).unwrap();
        let (incoming, troubles) = Incoming::open(&root.join("vault")).unwrap();
        assert!(troubles.is_empty(), "{troubles:?}");
        let watcher = Watcher::new(&root.join("drops"), options).unwrap();
        Yard { root: root.to_owned(), vault, incoming, watcher }
    }

    fn with<T>(&self, work: impl FnOnce(&Hands<'_>) -> T) -> T {
        let cancel = Cancel::default();
        let context = context(&self.root, &cancel);
        work(&Hands {
            vault: &self.vault,
            batches: &self.incoming.batches,
            context: &context,
            now: 1_000_000,
        })
    }

    pub fn scan(&self) -> Vec<Outcome> {
        self.with(|hands| self.watcher.scan(hands).unwrap())
    }

    /// What a start of the service does.
    pub fn finish(&self) -> Vec<Finished> {
        self.with(|hands| self.incoming.finish(hands, std::slice::from_ref(&self.watcher)).unwrap())
    }

    pub fn drops(&self) -> PathBuf {
        self.root.join("drops")
    }

    /// The only drop there is, which is taken.
    pub fn taken(&self) -> Taken {
        match self.scan().pop().map(|outcome| outcome.became) {
            Some(Became::Taken(taken)) => *taken,
            other => panic!("{other:?}"),
        }
    }

    /// What stands in the way of the only drop there is, with what fixes it.
    pub fn refused(&self) -> String {
        match self.scan().pop().map(|outcome| outcome.became) {
            Some(Became::Refused(trouble)) => {
                format!("{} | {} | {:?}", trouble.says, trouble.remedy.unwrap_or_default(), trouble.verdict)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Why the only drop waits.
    pub fn waits(&self) -> String {
        match self.scan().pop().map(|outcome| outcome.became) {
            Some(Became::Waiting { why }) => why,
            other => panic!("{other:?}"),
        }
    }

    pub fn live(&self, machine: &str, disk: &str) -> Vec<u8> {
        let machine = self.vault.machine(&machine.parse().unwrap()).unwrap();
        read_all(&machine.live(disk).unwrap())
    }

    pub fn at(&self, machine: &str, disk: &str, point: u64) -> Vec<u8> {
        let machine = self.vault.machine(&machine.parse().unwrap()).unwrap();
        let number = machine.disk_number(disk).unwrap();
        read_all(&machine.at(point).unwrap().disk(number).unwrap())
    }

    pub fn points(&self, machine: &str) -> usize {
        self.vault.machine(&machine.parse().unwrap()).map_or(0, |machine| machine.points().unwrap().len())
    }
}

/// A folder of a test, and a yard in it.
pub fn yard(options: Options) -> (tempfile::TempDir, Yard) {
    let dir = tempfile::tempdir().unwrap();
    let yard = Yard::open(dir.path(), options);
    (dir, yard)
}

/// A definition of VMware's with these disks.
pub fn vmx(name: &str, disks: &[&str]) -> String {
    let mut text = format!(
        ".encoding = \"UTF-8\"\nconfig.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"{name}\"\n\
         memSize = \"2048\"\nnumvcpus = \"2\"\nguestOS = \"debian11-64\"\nscsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n"
    );
    for (number, disk) in disks.iter().enumerate() {
        text += &format!("scsi0:{number}.present = \"TRUE\"\nscsi0:{number}.fileName = \"{disk}\"\n");
    }
    text
}

/// A manifest as sha256sum makes it, of all that lies in the folder.
pub fn seal(folder: &Path) {
    let script = "find . -type f ! -name SHA256SUMS ! -name REFUSED.txt -print0 | sort -z | xargs -0 sha256sum > SHA256SUMS";
    output(Command::new("sh").args(["-c", script]).current_dir(folder));
}

pub fn qemu_img(arguments: &[&str], folder: &Path) {
    output(Command::new("qemu-img").args(arguments).current_dir(folder));
}

/// Several MiB with a hole in them.
pub fn content(seed: u64) -> Vec<u8> {
    let mut bytes = noise(seed, 3 << 20);
    bytes[1 << 20..(1 << 20) + 300_000].fill(0);
    bytes.resize(8 << 20, 0);
    bytes
}

#[test]
fn machines_of_all_formats_are_taken() {
    if program("qemu-img", "qemu-utils").is_none() {
        return;
    }
    let (_dir, yard) = yard(Options::default());
    for (number, (format, options)) in [
        ("qcow2", ""),
        ("qcow2", "compat=0.10"),
        ("vmdk", ""),
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vhdx", ""),
        ("vpc", "force_size=on"),
        ("raw", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("web{number}");
        let partial = yard.drops().join(format!("{name}.partial"));
        fs::create_dir(&partial).unwrap();
        let wanted = content(number as u64);
        fs::write(yard.root.join("raw"), &wanted).unwrap();
        let ending = if format == "vpc" { "vhd" } else { format };
        let mut arguments = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            arguments.extend(["-o", options]);
        }
        let image = format!("disk.{ending}");
        arguments.extend(["../../raw", &image]);
        qemu_img(&arguments, &partial);
        fs::write(partial.join("machine.vmx"), vmx(&name, &[&image])).unwrap();
        fs::write(partial.join("machine.nvram"), "not what UEFI keeps").unwrap();
        assert!(yard.scan().is_empty(), "{format} {options}");
        let folder = yard.drops().join(&name);
        fs::rename(&partial, &folder).unwrap();
        let taken = yard.taken();
        assert_eq!((taken.verdict, taken.disks.len()), (Verdict::CouldNotRun, 1), "{format} {options}");
        assert!(yard.live(&name, "scsi0-0") == wanted, "{format} {options}");
        assert!(yard.at(&name, "scsi0-0", taken.point) == wanted);
        // Its definition is part of the point.
        let machine = yard.vault.machine(&name.parse().unwrap()).unwrap();
        let raw = machine.at(taken.point).unwrap().state().attachments["machine.json"].clone();
        let definition: Machine = serde_json::from_slice(&raw).unwrap();
        assert_eq!((definition.name.as_str(), definition.cpus.count), (name.as_str(), 2));
        assert_eq!(definition.disks[0].file, "scsi0-0");
        // It is put away, whole.
        assert!(!folder.exists() && taken.place.join(&image).is_file());
        assert!(taken.place.starts_with(yard.drops().canonicalize().unwrap().join(".done")));
        assert!(yard.scan().is_empty());
    }
}

#[test]
fn only_what_differs_is_written() {
    if program("qemu-img", "qemu-utils").is_none() {
        return;
    }
    let (_dir, yard) = yard(Options { manifest: true, keep: false });
    let mut wanted = content(1);
    for round in 0..3_u64 {
        let folder = yard.drops().join("web01").join(format!("day{round}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.raw"), &wanted).unwrap();
        fs::write(folder.join("b.raw"), &content(9)[..1 << 20]).unwrap();
        fs::write(folder.join("web01.vmx"), vmx("web01", &["a.raw", "b.raw"])).unwrap();
        assert!(yard.waits().contains("no manifest"));
        seal(&folder);
        let taken = yard.taken();
        assert_eq!(taken.verdict, Verdict::Matched);
        let written: u64 = taken.disks.iter().map(|disk| disk.counts.written).sum();
        let zeroed: u64 = taken.disks.iter().map(|disk| disk.counts.zeroed).sum();
        match round {
            0 => assert!(written > 2 << 20),
            1 => assert_eq!((written, zeroed), (4096, 8192)),
            _ => assert_eq!((written, zeroed), (0, 0)),
        }
        assert!(yard.live("web01", "scsi0-0") == wanted);
        assert_eq!(yard.points("web01"), usize::try_from(round).unwrap() + 1);
        // The machine's own folder stays for the next.
        assert!(yard.drops().join("web01").is_dir() && taken.place.ends_with(format!("web01/day{round}")));
        if round == 0 {
            wanted[5000] ^= 1;
            wanted[40_960..49_152].fill(0);
        }
    }
}

#[test]
fn an_ova_is_taken_with_its_definition() {
    let (_dir, yard) = yard(Options::default());
    let image = yard.root.join("disk.raw");
    let wanted = content(4);
    fs::write(&image, &wanted).unwrap();
    let folder = yard.drops().join("shop");
    fs::create_dir(&folder).unwrap();
    let mut landfall = Command::new(env!("CARGO_BIN_EXE_landfall"));
    output(landfall.args(["disk", "convert", "-O", "ova"]).arg(&image).arg(folder.join("shop.ova")));
    let taken = yard.taken();
    let disk = taken.disks[0].disk.as_str().to_owned();
    assert!(yard.live("shop", &disk) == wanted, "{taken:?}");
}

/// Nothing is taken before it is complete, and everything that tells so is seen.
#[test]
fn what_is_not_sealed_waits() {
    let (_dir, yard) = yard(Options::default());
    let folder = yard.drops().join("web01");
    fs::create_dir(&folder).unwrap();
    assert!(yard.scan().is_empty());
    fs::write(folder.join("a.raw"), content(1)).unwrap();
    fs::write(folder.join("b.raw.part"), "").unwrap();
    assert!(yard.waits().contains("b.raw.part"));
    fs::rename(folder.join("b.raw.part"), folder.join(".b.raw.Xy12")).unwrap();
    assert!(yard.waits().contains(".b.raw.Xy12"));
    fs::remove_file(folder.join(".b.raw.Xy12")).unwrap();
    let open = fs::OpenOptions::new().append(true).open(folder.join("a.raw")).unwrap();
    assert!(yard.waits().contains("a.raw is open for writing"));
    drop(open);
    // A manifest that comes before what it names, or is on its way itself.
    seal(&folder);
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    fs::write(folder.join("SHA256SUMS"), format!("{sums}{}  b.raw\n", &sums[..64])).unwrap();
    assert!(yard.waits().contains("b.raw is in the manifest"));
    fs::write(folder.join("SHA256SUMS"), &sums[..sums.len() - 4]).unwrap();
    assert!(yard.waits().contains("ends in the middle"));
    fs::write(folder.join("SHA256SUMS"), &sums).unwrap();
    fs::write(folder.join("c.raw"), "").unwrap();
    assert!(yard.waits().contains("c.raw is in no manifest"));
    fs::remove_file(folder.join("c.raw")).unwrap();
    // Ours has sizes, too.
    let size = content(1).len();
    let own = |size: usize| {
        format!(
            "{{\"landfall_drop\": 1, \"files\": {{\"a.raw\": {{\"sha256\": \"{}\", \"size\": {size}}}}}}}",
            &sums[..64]
        )
    };
    fs::remove_file(folder.join("SHA256SUMS")).unwrap();
    fs::write(folder.join("landfall.json"), own(size + 1)).unwrap();
    assert!(yard.waits().contains("bytes yet"));
    fs::write(folder.join("landfall.json"), &own(size)[..30]).unwrap();
    assert!(yard.waits().contains("ends in the middle"));
    assert_eq!(yard.points("web01"), 0);
    fs::write(folder.join("landfall.json"), own(size)).unwrap();
    fs::write(folder.join(".DS_Store"), "litter").unwrap();
    let taken = yard.taken();
    assert_eq!((taken.verdict, taken.disks[0].disk.as_str()), (Verdict::Matched, "disk0"));
    assert!(yard.live("web01", "disk0") == content(1));
}

#[test]
fn three_verdicts_of_a_drop() {
    let (_dir, yard) = yard(Options::default());
    let folder = yard.drops().join("web01");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.raw"), content(1)).unwrap();
    output(Command::new("sh").args(["-c", "sha256sum a.raw > a.raw.sha256"]).current_dir(&folder));
    // One bit.
    let mut bad = content(1);
    bad[2 << 20] ^= 0x10;
    fs::write(folder.join("a.raw"), &bad).unwrap();
    let refused = yard.refused();
    assert!(refused.contains("damaged on its way") && refused.ends_with("Differed"), "{refused}");
    let note = fs::read_to_string(folder.join("REFUSED.txt")).unwrap();
    assert!(note.contains("a.raw was damaged") && note.contains("copy the file again"), "{note}");
    assert_eq!(yard.refused(), refused);
    assert_eq!(yard.points("web01"), 0);
    // The clean control, by itself; what was said is taken back.
    fs::write(folder.join("a.raw"), content(1)).unwrap();
    let taken = yard.taken();
    assert_eq!(taken.verdict, Verdict::Matched);
    assert!(!taken.place.join("REFUSED.txt").exists());
    // No digest.
    let folder = yard.drops().join("web02");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.raw"), &bad).unwrap();
    assert_eq!(yard.taken().verdict, Verdict::CouldNotRun);
    let machine = yard.vault.machine(&"web02".parse().unwrap()).unwrap();
    let said = String::from_utf8(machine.journal().state().attachments["drop:disk0"].clone()).unwrap();
    assert!(said.contains("\"is_unverified\":true") && said.contains("could-not-run"), "{said}");
}

#[test]
fn drops_can_stay_in_their_place() {
    let (_dir, yard) = yard(Options { manifest: false, keep: true });
    let folder = yard.drops().join("web01");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.raw"), content(1)).unwrap();
    let taken = yard.taken();
    assert_eq!(taken.place, folder.canonicalize().unwrap());
    let note = fs::read_to_string(folder.join("DONE.txt")).unwrap();
    assert!(note.contains(&format!("point {} of web01", taken.point)), "{note}");
    assert!(yard.scan().is_empty() && yard.points("web01") == 1);
    assert!(!yard.drops().join(".done").exists());
    // Other files are another drop.
    fs::write(folder.join("a.raw"), content(2)).unwrap();
    yard.taken();
    assert!(yard.live("web01", "disk0") == content(2));
}

/// The disks of a machine are of one moment, or it is said which are not.
#[test]
fn a_disk_that_is_left_out_has_to_be_told() {
    let (_dir, yard) = yard(Options::default());
    let put = |names: &[&str], json: &str| {
        let folder = yard.drops().join("web01");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let mut files = Vec::new();
        for name in names {
            fs::write(folder.join(name), content(name.len() as u64)).unwrap();
            let sum = output(Command::new("sha256sum").arg(folder.join(name)));
            files.push(format!("\"{name}\": {{\"sha256\": \"{}\"}}", &sum[..64]));
        }
        let rest = if json.is_empty() { String::new() } else { format!(", {json}") };
        let text = format!("{{\"landfall_drop\": 1, \"files\": {{{}}}{rest}}}", files.join(", "));
        fs::write(folder.join("landfall.json"), text).unwrap();
    };
    put(&["sda.raw", "sdbb.raw"], "");
    assert_eq!(yard.taken().disks.len(), 2);
    put(&["sda.raw"], "");
    let refused = yard.refused();
    assert!(refused.contains("no image of sdbb") && refused.contains("\"unchanged\""), "{refused}");
    put(&["other.raw"], "");
    assert!(yard.refused().contains("\"disks\""));
    put(&["sda.raw"], "\"unchanged\": [\"sdc\"]");
    assert!(yard.refused().contains("which it cannot be"));
    put(&["sda.raw"], "\"machine\": \"db\"");
    assert!(yard.refused().contains("of \"db\""));
    put(&["sda.raw"], "\"unknown\": 1");
    assert!(yard.refused().contains("unknown field"));
    put(&["sda.raw"], "\"unchanged\": [\"sdbb\"], \"tag\": \"before\", \"consistency\": \"application\"");
    let taken = yard.taken();
    let machine = yard.vault.machine(&"web01".parse().unwrap()).unwrap();
    let point = machine.points().unwrap().pop().unwrap();
    assert_eq!((point.sequence, point.mark.tag.as_deref()), (taken.point, Some("before")));
    // A new name for a disk, and one that is no more; its earlier points keep it.
    put(&["other.raw"], "\"disks\": {\"sda\": \"other.raw\"}, \"removed\": [\"sdbb\"]");
    yard.taken();
    assert!(yard.live("web01", "sda") == content(9) && machine.disk_number("sdbb").is_none());
    assert_eq!(machine.at(taken.point).unwrap().state().disks.len(), 2);
}

/// A machine that hangs on the mirror is not written to by a drop.
#[test]
fn a_disk_that_is_mirrored_is_left_alone() {
    let (_dir, yard) = yard(Options::default());
    let folder = yard.drops().join("web01");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.raw"), content(1)).unwrap();
    let stream = yard.incoming.leases.stream(&"web01".parse().unwrap(), &"disk0".parse().unwrap()).unwrap();
    assert!(yard.refused().contains("over NBD"));
    drop(stream);
    yard.taken();
    // Written to since: a whole image is right all the same.
    let machine = yard.vault.machine(&"web01".parse().unwrap()).unwrap();
    machine.live("disk0").unwrap().write_at(GuestOffset(0), &[7; 512]).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.raw"), content(1)).unwrap();
    assert_eq!(yard.taken().disks[0].counts.written, 4096);
    assert!(yard.live("web01", "disk0") == content(1));
}

/// An image of which nobody knows what it is: a drop has no options, and its manifest says it.
#[test]
fn what_cannot_be_told_is_said_in_the_manifest() {
    let (_dir, yard) = yard(Options::default());
    let folder = yard.drops().join("web01");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.vmdk"), content(1)).unwrap();
    let refused = yard.refused();
    assert!(refused.contains("\"format\": \"raw\"") && !refused.contains("-f raw"), "{refused}");
}

/// Whoever makes drops with landfall seals them with it.
#[test]
fn a_drop_is_sealed_where_it_is_made() {
    use landfall::ops::receive;
    use landfall::receive::folder::manifest::Manifest;
    let (dir, yard) = yard(Options { manifest: true, keep: false });
    let folder = yard.drops().join("web01");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.raw"), content(1)).unwrap();
    let (cancel, given) = (Cancel::default(), Manifest { tag: Some("first".into()), ..Manifest::default() });
    let context = context(dir.path(), &cancel);
    let open = fs::OpenOptions::new().append(true).open(folder.join("a.raw")).unwrap();
    assert!(
        receive::seal(&context, &folder, given.clone()).unwrap_err().says().contains("still being written")
    );
    drop(open);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(
        receive::seal(&context, &empty, given.clone()).is_err()
            && fs::read_dir(&empty).unwrap().next().is_none()
    );
    receive::seal(&context, &folder, given).unwrap();
    let taken = yard.taken();
    assert_eq!(taken.verdict, Verdict::Matched);
    let machine = yard.vault.machine(&"web01".parse().unwrap()).unwrap();
    assert_eq!(machine.points().unwrap()[0].mark.tag.as_deref(), Some("first"));
}
