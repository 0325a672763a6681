//! The script run by a real interpreter of its language, Wine's cmd.exe, among programs that only note how they were called
//! and fail where they are told to; and the service started by Wine's service control manager.
//!
//! Wine's cmd.exe is not Microsoft's. What this proves is the script's logic, quoting and files; not that netsh of some
//! version takes the arguments.

use super::tests::steps;
use super::{PROGRAM, Steps, script};
use crate::testing;
use crate::windows::draft::Version;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUTES: &str = "\
===========================================================================
Schnittstellenliste
 12...52 54 00 00 00 01 ......Red Hat \"VirtIO\" & calc | %PATH% > x
  7...52 54 00 00 00 0b ......Red Hat VirtIO
 13...52 54 00 00 00 01 ......Filter
  1...........................Software Loopback Interface 1
===========================================================================
";
const GETMAC: &str = "\
\"52-54-00-00-00-01\",\"\\Device\\Tcpip_{AAAAAAAA-0000-4000-8000-000000000001}\"
\"52-54-00-00-00-0B\",\"\\Device\\Tcpip_{BBBBBBBB-0000-4000-8000-000000000002}\"
";
const TOOLS: &[&str] = &[
    "route",
    "getmac",
    "pnputil",
    "netsh",
    "reg",
    "sc",
    "shutdown",
    "ipconfig",
    "waitfor",
    "ping",
    "icacls",
    "msiexec",
    "WindowsPowerShell/v1.0/powershell",
];

/// A Windows of Wine's, with our programs in C:\stub.
struct Wine {
    home: tempfile::TempDir,
    stub: PathBuf,
}

/// One after another: a Windows takes a while to make, and hundreds of megabytes.
#[test]
fn the_script_does_what_it_should() {
    let (Some(_), Some(compiler)) = (testing::tool("wine"), testing::tool("x86_64-w64-mingw32-gcc")) else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let stub = home.path().join("stub.exe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/windows/first_boot/stub.c");
    let done = Command::new(compiler).args(["-O1", "-o"]).arg(&stub).arg(source).status().unwrap();
    assert!(done.success());
    let wine = Wine { home, stub };
    assert!(wine.run("wineboot", &["-i"]).success(), "wineboot");
    for case in [
        everything_is_set_up_and_the_script_is_gone,
        one_adapters_failure_stops_no_other_and_windows_restarts_once,
        what_fails_for_a_while_is_tried_again_and_what_is_there_is_set,
        only_what_is_gone_is_taken_away,
        an_adapter_that_never_comes_ends_it_all_the_same,
        a_step_that_hangs_is_left_alone,
        an_installer_that_succeeded_goes_and_one_that_failed_stays,
        a_real_package_is_installed,
        it_gives_up_after_five_starts,
        the_service_leaves_the_script_running,
    ] {
        case(&wine);
    }
}

impl Drop for Wine {
    fn drop(&mut self) {
        self.run("wineserver", &["-k", "-w"]);
    }
}

impl Wine {
    fn run(&self, program: &str, arguments: &[&str]) -> std::process::ExitStatus {
        Command::new(program)
            .args(arguments)
            .env("WINEPREFIX", self.home.path().join("prefix"))
            .env("WINEDEBUG", "-all")
            .env("HOME", self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
    }
    fn drive(&self, path: &str) -> PathBuf {
        self.home.path().join("prefix/drive_c").join(path)
    }

    /// Puts the script there, and programs that end as the rules say: `part of the line|code|so many times`.
    fn prepare(&self, steps: &Steps, rules: &str) {
        // An earlier script removes itself a little later, and must not remove this one.
        if self.drive("windows/landfall/done.json").exists() {
            self.left();
        }
        for folder in ["stub", "windows/landfall"] {
            let _ = std::fs::remove_dir_all(self.drive(folder));
            std::fs::create_dir_all(self.drive(folder)).unwrap();
        }
        std::fs::create_dir_all(self.drive("stub/WindowsPowerShell/v1.0")).unwrap();
        for tool in TOOLS {
            std::fs::copy(&self.stub, self.drive(&format!("stub/{tool}.exe"))).unwrap();
        }
        std::fs::write(self.drive("stub/route.out"), ROUTES).unwrap();
        std::fs::write(self.drive("stub/getmac.out"), GETMAC).unwrap();
        std::fs::write(self.drive("stub/rules.txt"), rules).unwrap();
        let put = |name: &str, text: Vec<u8>| {
            let text = String::from_utf8(text).unwrap();
            assert!(
                !name.starts_with("firstboot") || text.contains("set \"SYS=%SystemRoot%\\System32\"\r\n")
            );
            let text = text
                .replace("%SYS%\\cmd.exe", "%SystemRoot%\\System32\\cmd.exe")
                .replace("set \"SYS=%SystemRoot%\\System32\"", "set \"SYS=C:\\stub\"")
                .replace("%SystemRoot%\\System32\\pnputil.exe", "C:\\stub\\pnputil.exe")
                .replace("%SystemRoot%\\System32\\msiexec.exe", "C:\\stub\\msiexec.exe");
            std::fs::write(self.drive(&format!("windows/landfall/{name}")), text).unwrap();
        };
        put("firstboot.cmd", script::main(steps, Version { build: 19045, ..Version::TEN }));
        for (at, command) in steps.commands.iter().enumerate() {
            put(&format!("step{}.cmd", at + 1), script::command(at + 1, command));
            if let Some(installer) = &command.installer {
                std::fs::create_dir_all(self.drive("windows/landfall/agents")).unwrap();
                std::fs::write(self.drive("windows/landfall/agents").join(installer), "MZ").unwrap();
            }
        }
    }

    fn start(&self) {
        self.run("wine", &["cmd", "/d", "/c", "C:\\windows\\landfall\\firstboot.cmd"]);
    }
    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.drive(path)).unwrap_or_default().replace('\r', "")
    }
    fn calls(&self) -> String {
        let calls = self.text("stub/calls.log");
        calls
            .lines()
            .filter(|line| !line.starts_with("ping"))
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
    fn done(&self) -> serde_json::Value {
        let text = self.text("windows/landfall/done.json");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
    /// What is left in the folder, once the script has removed itself.
    fn left(&self) -> Vec<String> {
        let names = || {
            let folder = std::fs::read_dir(self.drive("windows/landfall")).unwrap();
            let mut names: Vec<String> =
                folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        wait(|| !names().contains(&"firstboot.cmd".to_owned()));
        names()
    }
}

fn wait(is_done: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_done() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn everything_is_set_up_and_the_script_is_gone(wine: &Wine) {
    wine.prepare(&steps(), "");
    wine.start();
    assert_eq!(wine.left(), ["agents", "done.json", "firstboot.log", "step1.log", "step2.log"]);
    insta::assert_snapshot!(wine.calls());
    insta::assert_json_snapshot!(wine.done());
}

fn one_adapters_failure_stops_no_other_and_windows_restarts_once(wine: &Wine) {
    let steps = Steps { commands: Vec::new(), ..steps() };
    wine.prepare(&steps, "set address name=12|1\n");
    wine.start();
    let calls = wine.calls();
    assert_eq!(calls.matches("set address name=12").count(), 10, "{calls}");
    assert_eq!(calls.matches("set address name=7").count(), 1);
    assert_eq!(calls.matches("shutdown").count(), 1);
    assert!(!calls.contains("sc delete"), "it goes on after the restart");
    wine.start();
    assert_eq!(wine.calls().matches("shutdown").count(), 1, "once");
    let done = wine.done();
    assert_eq!(done["result"], "partly");
    assert_eq!(
        (&done["adapters"][0]["state"], &done["adapters"][1]["state"]),
        (&"failed".into(), &"done".into())
    );
    assert_eq!(wine.left(), ["done.json", "firstboot.log"]);
}

fn what_fails_for_a_while_is_tried_again_and_what_is_there_is_set(wine: &Wine) {
    let steps = Steps { commands: Vec::new(), ..steps() };
    wine.prepare(
        &steps,
        "ipv4 set dnsservers name=12 source=static|1|2\ninterface ipv6 add address|1\nreg add|1\npowershell|5\n",
    );
    wine.start();
    let calls = wine.calls();
    assert_eq!(calls.matches("ipv4 set dnsservers name=12 source=static").count(), 3, "{calls}");
    assert!(calls.contains("interface ipv6 set address"));
    assert!(!calls.contains("shutdown"));
    let done = wine.done();
    assert_eq!((&done["result"], &done["adapters"][0]["state"]), (&"partly".into(), &"partly".into()));
}

/// `pnputil` that cannot leaves the addresses to the registry; an adapter that is there is left alone.
fn only_what_is_gone_is_taken_away(wine: &Wine) {
    let mut steps = Steps { commands: Vec::new(), ..steps() };
    let mut alive = steps.ghosts[0].clone();
    alive.guid = "{bbbbbbbb-0000-4000-8000-000000000002}".into();
    steps.ghosts.push(alive);
    wine.prepare(&steps, "remove-device|1\n");
    wine.start();
    let calls = wine.calls();
    assert_eq!(calls.matches("remove-device").count(), 1, "{calls}");
    assert!(calls.contains("{11111111-0000-4000-8000-000000000001} /v IPAddress /f"));
    assert!(!calls.contains("{bbbbbbbb-0000-4000-8000-000000000002} /v IPAddress"));
    // One card that is not there: nothing is known to be gone.
    steps.cards.push(Some("52:54:00:00:00:99".into()));
    wine.prepare(&steps, "");
    wine.start();
    assert!(!wine.calls().contains("remove-device"));
}

fn an_adapter_that_never_comes_ends_it_all_the_same(wine: &Wine) {
    let mut steps = Steps { commands: Vec::new(), ..steps() };
    steps.adapters[0].mac = "52:54:00:00:00:99".into();
    wine.prepare(&steps, "");
    // The sixth round asks WMI.
    std::fs::write(wine.drive("stub/powershell.out"), "").unwrap();
    wine.start();
    let calls = wine.calls();
    assert_eq!(calls.matches("shutdown").count(), 1, "{calls}");
    assert!(calls.contains("MACAddress -eq '52:54:00:00:00:99'"));
    std::fs::write(wine.drive("stub/powershell.out"), "44\n").unwrap();
    wine.start();
    assert!(wine.calls().contains("set address name=44 source=static"));
    assert_eq!(wine.done()["result"], "done");
}

fn a_step_that_hangs_is_left_alone(wine: &Wine) {
    let mut steps = Steps { commands: steps().commands, ..Steps::default() };
    steps.commands[1].line = "C:\\windows\\system32\\ping.exe -n 60 127.0.0.1".into();
    wine.prepare(&steps, "pnputil|3010\n");
    wine.start();
    assert_eq!(wine.calls().matches("shutdown").count(), 1, "3010 wants a restart");
    wine.start();
    let done = wine.done();
    assert_eq!((&done["steps"][0]["state"], &done["steps"][1]["state"]), (&"done".into(), &"late".into()));
    assert_eq!(wine.calls().matches("pnputil").count(), 1, "what ended is not done again");
}

fn an_installer_that_succeeded_goes_and_one_that_failed_stays(wine: &Wine) {
    let mut steps = Steps { commands: vec![steps().commands.remove(1)], ..Steps::default() };
    // The clock is a stub, and runs fast.
    steps.commands[0].seconds = 3600;
    let there = || wine.drive("windows/landfall/agents/a b.msi").exists();
    for wish in ["3010", "1641"] {
        wine.prepare(&steps, &format!("msiexec|{wish}\n"));
        wine.start();
        assert_eq!(wine.calls().matches("shutdown").count(), 1, "{wish} wants a restart");
        assert!(there(), "nothing is over yet");
        wine.start();
        assert_eq!(
            wine.calls().matches("msiexec /i C:\\windows\\landfall\\agents\\a b.msi /qn").count(),
            1,
            "{}",
            wine.calls()
        );
        assert_eq!((wine.done()["steps"][0]["state"].clone(), there()), ("done".into(), false));
    }
    wine.prepare(&steps, "msiexec|1603\n");
    wine.start();
    assert_eq!((wine.done()["steps"][0]["state"].clone(), there()), ("failed".into(), true));
    assert_eq!(wine.done()["result"], "partly");
    assert!(!wine.calls().contains("shutdown"));
}

/// Wine's Windows Installer runs a real package by the command line that a plan has.
fn a_real_package_is_installed(wine: &Wine) {
    use crate::windows::agents::{AgentInstaller, tests::staged_command};
    let Some(bytes) = crate::windows::agents::made_package("x64", "QEMU guest agent", "108.0.2") else {
        return;
    };
    let path = wine.home.path().join("qemu-ga x86_64 (1).msi");
    std::fs::write(&path, &bytes).unwrap();
    let command = staged_command(AgentInstaller::open(&path).unwrap());
    // The clock is a stub, and runs fast.
    let command = super::Command { seconds: 3600, ..command };
    let steps = Steps { commands: vec![command.clone()], ..Steps::default() };
    wine.prepare(&steps, "");
    // Not the program that stands for it elsewhere.
    std::fs::write(wine.drive("windows/landfall/step1.cmd"), script::command(1, &command)).unwrap();
    std::fs::write(wine.drive("windows/landfall/agents/qemu-ga x86_64 (1).msi"), &bytes).unwrap();
    wine.start();
    assert_eq!(wine.done()["steps"][0]["state"], "done", "{}", wine.text("windows/landfall/firstboot.log"));
    let installed = ["Program Files", "Program Files (x86)"]
        .map(|folder| wine.text(&format!("{folder}/Agent/agent.txt")));
    assert!(installed.iter().any(|text| text == "installed"), "{installed:?}");
    let left = std::fs::read_dir(wine.drive("windows/landfall/agents")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["qemu-ga x86_64 (1).msi.log"]);
}

fn it_gives_up_after_five_starts(wine: &Wine) {
    wine.prepare(&Steps { commands: Vec::new(), ..steps() }, "");
    std::fs::write(wine.drive("windows/landfall/starts.txt"), "5\r\n").unwrap();
    wine.start();
    assert!(!wine.calls().contains("netsh") && wine.calls().contains("sc delete landfall"));
    assert_eq!((wine.done()["result"].clone(), wine.done()["starts"].clone()), ("failed".into(), 6.into()));
}

/// The service control manager gives up on cmd.exe, and what that started goes on.
fn the_service_leaves_the_script_running(wine: &Wine) {
    wine.prepare(&Steps { commands: Vec::new(), ..steps() }, "");
    let key = "HKLM\\SYSTEM\\CurrentControlSet\\Services\\landfall";
    for (name, kind, data) in [
        ("Type", "REG_DWORD", "16"),
        ("Start", "REG_DWORD", "2"),
        ("ErrorControl", "REG_DWORD", "0"),
        ("ObjectName", "REG_SZ", "LocalSystem"),
        ("ImagePath", "REG_EXPAND_SZ", PROGRAM),
    ] {
        assert!(wine.run("wine", &["reg", "add", key, "/v", name, "/t", kind, "/d", data, "/f"]).success());
    }
    wine.run("wineserver", &["-k"]);
    // The next program starts the services that start by themselves.
    wine.run("wine", &["cmd", "/d", "/c", "ping.exe -n 20 127.0.0.1 >nul"]);
    wait(|| wine.calls().contains("sc delete landfall"));
    assert_eq!(wine.done()["result"], "done");
    wine.run("wine", &["reg", "delete", key, "/f"]);
}
