//! The script that runs a machine without libvirt: read by a shell and shellcheck, run against a program that writes down what it
//! was given, and against QEMU itself, which says what machine it has.

use super::powershell::assert_shell;
use super::{FULL, full, placement, rendered_files};
use landfall::machine::Machine;
use landfall_boot::target::{DiskModel, Firmware};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a shell runs if anything of a definition gets out of its quotes, with commas for QEMU.
const EVIL: &str = "it's, $(touch PWNED) `touch PWNED`; touch PWNED; \"x\" \\ & <a> @NAME@ @WORDS@, ä";

fn hostile(disks: usize, disk: DiskModel) -> Machine {
    let mut machine = full(disks, disk);
    machine.name = EVIL.into();
    machine.annotation = Some(format!("{EVIL}\ntouch PWNED"));
    machine.smbios.serial = Some(EVIL.into());
    machine.smbios.product = Some(format!("{EVIL}\ntouch PWNED"));
    machine.nics[0].network = Some(format!("{EVIL}\ntouch PWNED\n"));
    machine
}

/// The machine's script in a folder with an awkward name, with empty disks.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(machine: &Machine) -> Stage {
        let stage = Stage { folder: tempfile::Builder::new().prefix("lf").tempdir_in("/tmp").unwrap() };
        fs::create_dir(stage.path("it's here & so")).unwrap();
        fs::create_dir(stage.path("bin")).unwrap();
        fs::create_dir(stage.path("tmp")).unwrap();
        let mut placement = placement(machine, "/written/for/another");
        for disk in &mut placement.disks {
            disk.file = disk.file.replace("disk", "a disk, ");
            disk.format = "raw".into();
            let file = fs::File::create(stage.out(&disk.file)).unwrap();
            file.set_len(1 << 20).unwrap();
        }
        let script = rendered_files(machine, &placement).remove(2);
        assert!(script.name == "qemu.sh" && script.executable);
        assert_shell(&script.text);
        stage.executable("it's here & so/qemu.sh", &script.text);
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.path("it's here & so").join(name)
    }

    fn executable(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A program on the PATH that writes its words down.
    fn program(&self, name: &str) {
        let log = self.path(&format!("{name}.log"));
        self.executable(
            &format!("bin/{name}"),
            &format!("#!/bin/sh\nprintf '%s\\0' \"$@\" >'{}'\n", log.display()),
        );
    }

    /// What the program was given; a pair for each option.
    fn words(&self, name: &str) -> Vec<String> {
        let log = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        log.split_terminator('\0').map(str::to_owned).collect()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.out("qemu.sh"));
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("TMPDIR", self.path("tmp"));
        command
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn after<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
    words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
}

#[test]
fn every_word_arrives_as_it_was() {
    let mut machine = hostile(3, DiskModel::VirtioBlk);
    machine.secure_boot = false;
    let stage = Stage::new(&machine);
    stage.program("qemu");
    stage.program("swtpm");
    fs::write(stage.path("code"), "c").unwrap();
    fs::write(stage.path("template"), "t").unwrap();
    let run = |words: &[&str]| {
        let mut command = stage.command(words);
        command
            .env("QEMU", "qemu")
            .env("OVMF_CODE", stage.path("code"))
            .env("OVMF_VARS", stage.path("template"));
        let output = command.output().unwrap();
        assert!(!stage.path("PWNED").exists(), "a name was run");
        output
    };
    let done = run(&["-n", "bridge:br0", "-n", "1=user,hostfwd=tcp::2222-:22", "-S", "-name", "x y"]);
    assert!(done.status.success(), "{}", said(&done));
    let words = stage.words("qemu");
    let doubled = EVIL.replace(',', ",,");
    assert_eq!(after(&words, "-name"), [format!("guest={doubled}"), "x y".into()]);
    let smbios = format!(
        "type=1,manufacturer=HP & 'Co',, <Ltd>,product={doubled}touch PWNED,version=G9,serial={doubled},sku=SKU-7,family=Servers"
    );
    assert_eq!(after(&words, "-smbios"), [smbios]);
    assert_eq!(after(&words, "-smp"), ["8,sockets=2,cores=2,threads=2"]);
    assert_eq!(after(&words, "-rtc"), ["base=localtime"]);
    assert_eq!(after(&words, "-accel"), ["kvm", "tcg"]);
    assert_eq!(
        after(&words, "-netdev"),
        ["bridge,br=br0,id=net0", "user,hostfwd=tcp::2222-:22,id=net1"],
        "the first card of all, the second by its number"
    );
    let here = stage.out("a disk,, 1.qcow2");
    let drive = format!("if=none,id=disk1,format=raw,discard=unmap,file={}", here.display());
    assert!(after(&words, "-drive").contains(&drive.as_str()), "{words:?}");
    assert!(words.contains(&"-S".to_owned()));
    let swtpm = stage.words("swtpm");
    assert!(swtpm.contains(&format!("dir={}", stage.out("tpm").display())), "{swtpm:?}");
    let socket = after(&swtpm, "--ctrl")[0].replace("type=unixio", "socket,id=tpm");
    assert_eq!(after(&words, "-chardev"), [socket]);
    assert!(stage.out("tpm").is_dir());
    // A card that is not plugged in leads nowhere; the variables are made once, and then are the machine's own.
    fs::write(stage.out("uefi-variables.fd"), "T").unwrap();
    assert!(run(&[]).status.success());
    assert_eq!(after(&stage.words("qemu"), "-netdev"), ["user,id=net0", "hubport,hubid=1,id=net1"]);
    assert_eq!(fs::read_to_string(stage.out("uefi-variables.fd")).unwrap(), "T");
    // QEMU would only say that its firmware does not fit.
    fs::write(stage.out("uefi-variables.fd"), "of another firmware").unwrap();
    let other = run(&[]);
    assert!(other.status.code() == Some(1) && said(&other).contains("OVMF_CODE_4M.fd"), "{}", said(&other));
    fs::write(stage.out("uefi-variables.fd"), "T").unwrap();

    for (words, reason) in [
        (&["-n"][..], "wants a network"),
        (&["-n", "2=user"], "no card 2"),
        (&["-n", "0x=user"], "no number"),
        (&["-n", "bridge:a,b"], "is no network"),
        (&["-n", "tap:"], "is no network"),
        (&["-n", "vde"], "is no network"),
        (&["-n", "user,$(touch PWNED)"], "is no network"),
    ] {
        let refused = run(words);
        assert!(refused.status.code() == Some(1) && said(&refused).contains(reason), "{}", said(&refused));
    }
    fs::remove_file(stage.out("a disk, 2.qcow2")).unwrap();
    assert!(said(&run(&[])).contains("a disk, 2.qcow2 is not here"));
    let missing = stage.command(&[]).env("QEMU", "no-such-program").output().unwrap();
    assert!(said(&missing).contains("no-such-program is not here"), "{}", said(&missing));
}

/// QEMU with a machine that has not begun to run.
struct Running {
    child: Child,
    stream: BufReader<UnixStream>,
}

impl Running {
    fn start(stage: &Stage, words: &[&str]) -> Running {
        let socket = stage.path("qmp");
        let qmp = format!("unix:{},server=on,wait=off", socket.display());
        let mut all = words.to_vec();
        all.extend(["-S", "-qmp", &qmp]);
        let log = fs::File::create(stage.path("said")).unwrap();
        let mut child = stage
            .command(&all)
            .env("ACCEL", "tcg")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            let ended = child.try_wait().unwrap();
            let log = fs::read_to_string(stage.path("said")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}: {log}");
            std::thread::sleep(Duration::from_millis(50));
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut running = Running { child, stream: BufReader::new(stream) };
        let mut greeting = String::new();
        running.stream.read_line(&mut greeting).unwrap();
        running.ask(r#"{"execute": "qmp_capabilities"}"#).unwrap();
        running
    }

    fn ask(&mut self, question: &str) -> Option<serde_json::Value> {
        writeln!(self.stream.get_mut(), "{question}").unwrap();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let mut answer: serde_json::Value = serde_json::from_str(&line).unwrap();
            match (answer.get_mut("return").map(serde_json::Value::take), answer.get("error")) {
                (Some(value), _) => return Some(value),
                (None, Some(_)) => return None,
                (None, None) => {}
            }
        }
    }

    fn monitor(&mut self, line: &str) -> String {
        let question = serde_json::json!({
            "execute": "human-monitor-command", "arguments": { "command-line": line }
        });
        self.ask(&question.to_string()).unwrap().as_str().unwrap().to_owned()
    }

    /// The setting of a device on the command line.
    fn setting(&mut self, device: usize, name: &str) -> Option<serde_json::Value> {
        let path = format!("/machine/peripheral-anon/device[{device}]");
        let question = serde_json::json!({
            "execute": "qom-get", "arguments": { "path": path, "property": name }
        });
        self.ask(&question.to_string())
    }

    /// What the firmware is to start, in order: a drive or a card's address.
    fn order(&mut self) -> Vec<String> {
        let mut order = Vec::new();
        for device in 0.. {
            if self.setting(device, "type").is_none() {
                break;
            }
            let Some(index) = self.setting(device, "bootindex").and_then(|index| index.as_i64()) else {
                continue;
            };
            let name = self.setting(device, "drive").or_else(|| self.setting(device, "mac")).unwrap();
            order.push((index, name.as_str().unwrap().to_owned()));
        }
        order.retain(|(index, _)| *index >= 0);
        order.sort();
        order.into_iter().map(|(_, name)| name).collect()
    }

    /// Ends it from within, or by a signal to the script.
    fn end(mut self, by_signal: bool) {
        if by_signal {
            return;
        }
        assert!(self.ask(r#"{"execute": "quit"}"#).is_some());
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{ended:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The script hands it on to QEMU, and clears up.
        if let Ok(None) = self.child.try_wait() {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&self.child),
                rustix::process::Signal::TERM,
            );
            let _ = self.child.wait();
        }
    }
}

fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if !here {
        eprintln!("SKIPPED: {program} is not here (Debian: qemu-system-x86, swtpm)");
    }
    here
}

/// QEMU takes the command line of every kind of machine, and has what the machine has.
#[test]
fn qemu_takes_every_machine() {
    if !is_here("qemu-system-x86_64") {
        return;
    }
    let tpm = is_here("swtpm");
    for (disks, disk) in FULL {
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            let mut machine = hostile(disks, disk);
            machine.firmware = firmware;
            machine.secure_boot = firmware == Firmware::Uefi && disk != DiskModel::Ide;
            machine.tpm = tpm;
            if firmware == Firmware::Uefi && !Path::new("/usr/share/OVMF").exists() {
                eprintln!("SKIPPED: no UEFI firmware (Debian: ovmf)");
                continue;
            }
            for card in ["virtio-net", "vmxnet3", "e1000e", "e1000", "rtl8139"] {
                machine.nics.iter_mut().for_each(|nic| nic.model = Some(card.into()));
                if card != "virtio-net" && disk != DiskModel::Sata && disk != DiskModel::Ide {
                    continue;
                }
                let stage = Stage::new(&machine);
                let mut running = Running::start(&stage, &["-n", "0=user,restrict=on"]);
                let status = running.ask(r#"{"execute": "query-status"}"#).unwrap();
                assert_eq!(status["status"], "prelaunch");
                assert_eq!(running.ask(r#"{"execute": "query-name"}"#).unwrap()["name"], machine.name);
                let uuid = running.ask(r#"{"execute": "query-uuid"}"#).unwrap();
                assert_eq!(uuid["UUID"], machine.smbios.uuid.unwrap().to_string());
                let memory = running.ask(r#"{"execute": "query-memory-size-summary"}"#).unwrap();
                assert_eq!(memory["base-memory"], machine.memory.0);
                let cpus = running.ask(r#"{"execute": "query-hotpluggable-cpus"}"#).unwrap();
                let last = cpus.as_array().unwrap().iter().map(|cpu| &cpu["props"]);
                let last = last.max_by_key(|at| {
                    ["socket-id", "core-id", "thread-id"].map(|part| at[part].as_u64().unwrap())
                });
                let last = last.unwrap();
                assert_eq!(
                    (&last["socket-id"], &last["core-id"], &last["thread-id"]),
                    (&1.into(), &1.into(), &1.into())
                );
                let blocks = running.ask(r#"{"execute": "query-block"}"#).unwrap();
                for index in 0..disks {
                    let name = format!("disk{index}");
                    let block =
                        blocks.as_array().unwrap().iter().find(|block| block["device"] == name.as_str());
                    let file = stage.out(&format!("a disk, {index}.qcow2"));
                    assert_eq!(block.unwrap()["inserted"]["file"], file.to_str().unwrap());
                }
                let network = running.monitor("info network");
                for nic in &machine.nics {
                    assert!(network.contains(nic.mac.as_deref().unwrap()), "{network}");
                }
                assert!(network.contains("restrict=on") || network.contains("type=user"), "{network}");
                let tree = running.monitor("info qtree");
                assert!(tree.contains("S_1.+ -x"), "{tree}");
                assert_eq!(
                    tree.contains("logical_block_size = 4096"),
                    machine.disks[0].sector_size.is_some()
                );
                let (first, second) =
                    (machine.nics[1].mac.clone().unwrap(), machine.nics[0].mac.clone().unwrap());
                assert_eq!(running.order(), [first, "disk1".into(), second]);
                // By a signal to the script, too, nothing is left.
                running.end(firmware == Firmware::Bios);
                assert!(UnixStream::connect(stage.path("qmp")).is_err(), "QEMU is left behind");
                assert_eq!(fs::read_dir(stage.path("tmp")).unwrap().count(), 0);
                assert_eq!(stage.out("uefi-variables.fd").exists(), firmware == Firmware::Uefi);
            }
        }
    }
}
