use super::*;
use crate::family::Scene;
use crate::patch::PatchPlan;
use crate::target::{Platform, Request, Services};
use crate::testing;
use crate::tree::GuestTree;
use crate::tree::mem::MemTree;
use crate::windows::data::Data;
use crate::windows::draft::System;
use crate::windows::draft::tests::{draft, ten};
use std::fs::File;
use std::io::Write;
use std::process::Command as Process;

/// A file of its own with this content.
pub fn temporary(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A program that does nothing, by MinGW, with a version resource that says this.
pub fn program(machine: &str, product: &str, version: &str) -> Option<Vec<u8>> {
    let compiler = testing::tool(&format!("{machine}-w64-mingw32-gcc"))?;
    let resources = testing::tool(&format!("{machine}-w64-mingw32-windres"))?;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let texts = format!(
        "1 VERSIONINFO\nFILEVERSION 1,2,3,4\nBEGIN\n BLOCK \"StringFileInfo\"\n BEGIN\n  BLOCK \"040904b0\"\n  BEGIN\n   \
         VALUE \"CompanyName\", \"Somebody\"\n   VALUE \"ProductName\", \"{product}\"\n   VALUE \"ProductVersion\", \"{version}\"\n  \
         END\n END\n BLOCK \"VarFileInfo\"\n BEGIN\n  VALUE \"Translation\", 0x409, 1200\n END\nEND\n"
    );
    std::fs::write(at("a.rc"), texts).unwrap();
    std::fs::write(at("a.c"), "int main(void) { return 0; }\n").unwrap();
    let made = Process::new(resources).arg(at("a.rc")).arg(at("a.res.o")).status().unwrap();
    assert!(made.success());
    let sources = [at("a.c"), at("a.res.o")];
    let made = Process::new(compiler).args(["-s", "-o"]).arg(at("a.exe")).args(sources).status().unwrap();
    assert!(made.success());
    Some(std::fs::read(at("a.exe")).unwrap())
}

/// A package with one file, by wixl.
pub fn package(processor: &str, product: &str, version: &str) -> Option<Vec<u8>> {
    let wixl = testing::tool("wixl")?;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let source = format!(
        r#"<?xml version="1.0"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
 <Product Name="{product}" Id="*" UpgradeCode="12345678-1234-4321-8765-1234567890ab" Language="1033" Version="{version}" Manufacturer="Somebody">
  <Package InstallerVersion="200" Compressed="yes" InstallScope="perMachine"/>
  <Media Id="1" Cabinet="a.cab" EmbedCab="yes"/>
  <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="ProgramFilesFolder"><Directory Id="D" Name="Agent">
   <Component Id="C" Guid="12345678-1234-4321-8765-1234567890ac"><File Id="F" Name="agent.txt" Source="agent.txt" KeyPath="yes"/></Component>
  </Directory></Directory></Directory>
  <Feature Id="All" Level="1"><ComponentRef Id="C"/></Feature>
 </Product>
</Wix>"#
    );
    std::fs::write(at("a.wxs"), source).unwrap();
    std::fs::write(at("agent.txt"), "installed").unwrap();
    let made = Process::new(wixl)
        .args(["-a", processor, "-o", "a.msi", "a.wxs"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(std::fs::read(at("a.msi")).unwrap())
}

/// Installers in a folder of their own.
struct Given {
    folder: tempfile::TempDir,
}

impl Given {
    fn new() -> Given {
        Given { folder: tempfile::tempdir().unwrap() }
    }
    fn file(&self, name: &str, bytes: &[u8]) -> AgentInstaller {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        AgentInstaller::open(&path).unwrap()
    }
    /// One that was recognised as this.
    fn known(&self, name: &str, product: Product, version: &str, architecture: &str) -> AgentInstaller {
        AgentInstaller {
            form: Some(if name.ends_with(".msi") { Form::Package } else { Form::Program }),
            product: Some(product),
            called: Some("An Agent".into()),
            version: Some(version.into()),
            architectures: vec![architecture.into()],
            ..self.file(name, name.as_bytes())
        }
    }
}

/// One pass: the plan, the agents that will be there, the steps.
fn run(
    tree: &MemTree,
    request: &Request,
    system: System,
    software: &[(&str, &str, Data)],
    services: &[(&str, &str, Data)],
) -> (PatchPlan, Vec<&'static str>, Steps) {
    let scene = Scene { tree, volumes: &[], mounts: &[] };
    let mut draft = draft(&scene, request, system, services, software);
    let mut steps = Steps::default();
    let taken = plan(&mut draft, &mut steps).unwrap();
    (draft.finish(), taken, steps)
}

fn to(platform: Platform, agent_installers: Vec<AgentInstaller>) -> Request {
    Request { platform, agent_installers, ..Request::default() }
}

fn ids(plan: &PatchPlan) -> Vec<&str> {
    plan.findings.iter().map(|finding| finding.id).collect()
}

#[test]
fn files_are_what_they_say() {
    let given = Given::new();
    let (Some(vmware), Some(qemu)) =
        (program("x86_64", "VMware Tools", "12.3.5.22544099"), package("x64", "QEMU guest agent", "108.0.2"))
    else {
        return;
    };
    let found = given.file("setup64.exe", &vmware);
    assert_eq!((found.form, found.product), (Some(Form::Program), Some(Product::VmwareTools)));
    assert_eq!(
        (found.version.as_deref(), &found.architectures[..]),
        (Some("12.3.5.22544099"), &["x86_64".to_owned()][..])
    );
    assert_eq!(found.shown(), "setup64.exe (VMware Tools 12.3.5.22544099)");
    let found = given.file("a.msi", &qemu);
    assert_eq!((found.form, found.product), (Some(Form::Package), Some(Product::QemuGuestAgent)));
    assert_eq!(found.architectures, ["x86_64"]);
    // Neither is what the other's name promises, and text is nothing at all.
    for (name, bytes) in
        [("a.msi", &vmware[..]), ("a.exe", &qemu), ("qemu-ga-x86_64.msi", b"text"), ("setup64.iso", &qemu)]
    {
        let found = given.file(name, bytes);
        assert_eq!((found.form, found.product), (None, None), "{name}");
    }
    let other = program("x86_64", "A Printer", "1.0").unwrap();
    assert_eq!(given.file("VMware-tools-12-x64.exe", &other).product, None);
    for name in ["a b&c.msi", "a%b.msi", "ü.msi", ".msi"] {
        let path = given.folder.path().join(name);
        std::fs::write(&path, "x").unwrap();
        assert!(
            AgentInstaller::open(&path).unwrap_err().to_string().contains("cannot stand in a command"),
            "{name}"
        );
    }
}

#[test]
fn thirty_two_bits_are_for_whom_the_name_says() {
    let of = |own, file, product| architectures(own, file, product).join(" ");
    assert_eq!(of(Some("i686"), "virtio-win-guest-tools.exe", None), "i686 x86_64");
    assert_eq!(of(Some("i686"), "virtio-win-gt-x64.msi", None), "x86_64");
    assert_eq!(of(Some("i686"), "vmware-tools-12.3.5-1-x86_64.exe", None), "x86_64");
    assert_eq!(of(Some("i686"), "qemu-ga-i386.msi", None), "i686");
    assert_eq!(of(Some("i686"), "setup.exe", Some(Product::VmwareTools)), "i686");
    assert_eq!(of(Some("i686"), "setup.exe", Some(Product::NutanixGuestTools)), "i686 x86_64");
    assert_eq!(of(Some("x86_64"), "qemu-ga-i386.msi", None), "x86_64", "its processor counts");
    assert_eq!(of(Some("aarch64"), "a.exe", None), "aarch64");
    assert_eq!(of(None, "a-x64.exe", None), "");
}

#[test]
fn the_targets_agent_is_staged_and_nothing_is_done_twice() {
    let given = Given::new();
    let ga = given.known("qemu-ga-x86_64.msi", Product::QemuGuestAgent, "108.0.2", "x86_64");
    let old = given.known("qemu-ga-i386.msi", Product::QemuGuestAgent, "108.0.2", "i686");
    let vmware = given.known("setup64.exe", Product::VmwareTools, "12.3.5", "x86_64");
    let request = to(Platform::Kvm, vec![vmware, old, ga.clone()]);
    let mut tree = MemTree::new().dir("/Windows");
    let (plan, taken, steps) = run(&tree, &request, ten(), &[], &[]);
    assert_eq!((ids(&plan), taken), (vec!["windows-installer-staged"], vec!["qemu-guest-agent"]));
    assert_eq!(steps.commands.len(), 1);
    let shown = serde_json::to_string_pretty(&(&plan.edits, &steps.commands[0].line)).unwrap();
    insta::assert_snapshot!(shown.replace(given.folder.path().to_str().unwrap(), "FOLDER"));
    let changes = crate::apply::materialise(&plan, &tree).unwrap();
    tree.apply(&changes).unwrap();
    assert_eq!(
        tree.read("/Windows/landfall/agents/qemu-ga-x86_64.msi", Bytes(99)).unwrap().unwrap(),
        b"qemu-ga-x86_64.msi"
    );
    let (again, _, same) = run(&tree, &request, ten(), &[], &[]);
    assert_eq!((again.edits.len(), same == steps), (0, true));
    // Of the same length, and another file.
    let tree = MemTree::new().file("/Windows/landfall/agents/qemu-ga-x86_64.msi", "qemu-ga-x86_64.msX");
    assert_eq!(run(&tree, &request, ten(), &[], &[]).0.edits.len(), 1);
}

#[test]
fn what_does_not_fit_is_told_and_left_out() {
    let given = Given::new();
    let tree = MemTree::new().dir("/Windows");
    let vmware = |architecture| given.known("setup64.exe", Product::VmwareTools, "12.3.5", architecture);
    let says = |request: &Request, system: System| {
        let (plan, taken, steps) = run(&tree, request, system, &[], &[]);
        assert!(plan.edits.is_empty() && taken.is_empty() && steps.is_empty());
        assert_eq!(plan.findings.len(), 1, "{:?}", plan.findings);
        format!("{}: {}", plan.findings[0].id, plan.findings[0].says)
    };
    let drop = Services { drop: vec!["vmware-tools".into()], ..Services::default() };
    let no_program = AgentInstaller { product: Some(Product::XenGuestTools), ..vmware("x86_64") };
    let unknown = AgentInstaller { product: None, ..vmware("x86_64") };
    let text = given.file("notes.txt", b"text");
    let found = [
        says(&to(Platform::Kvm, vec![vmware("x86_64")]), ten()),
        says(&to(Platform::Hyperv, vec![vmware("x86_64")]), ten()),
        says(&to(Platform::Esxi, vec![vmware("i686")]), ten()),
        says(&to(Platform::Esxi, vec![vmware("x86_64")]), System { architecture: "aarch64".into(), ..ten() }),
        says(&Request { services: drop, ..to(Platform::Esxi, vec![vmware("x86_64")]) }, ten()),
        says(&to(Platform::Xen, vec![no_program]), ten()),
        says(&to(Platform::Esxi, vec![unknown]), ten()),
        says(&to(Platform::Esxi, vec![text]), ten()),
    ];
    insta::assert_snapshot!(found.join("\n"));
    // A second one of the same agent is told, too.
    let two =
        to(Platform::Esxi, vec![vmware("x86_64"), given.known("b.exe", Product::VmwareTools, "1", "x86_64")]);
    let (plan, ..) = run(&tree, &two, ten(), &[], &[]);
    assert_eq!(
        (ids(&plan), plan.edits.len()),
        (vec!["windows-installer-unfit", "windows-installer-staged"], 1)
    );
    let full = MemTree::new().dir("/Windows").free(Bytes(9));
    let (plan, taken, _) = run(&full, &to(Platform::Esxi, vec![vmware("x86_64")]), ten(), &[], &[]);
    assert_eq!((ids(&plan), taken.len(), plan.edits.len()), (vec!["windows-installer-no-room"], 0, 0));
}

#[test]
fn what_is_there_stays_unless_it_is_older() {
    let given = Given::new();
    let tree = MemTree::new().dir("/Windows");
    let request = to(
        Platform::Esxi,
        vec![given.known("setup64.exe", Product::VmwareTools, "12.3.5.22544099", "x86_64")],
    );
    let service = ("ControlSet001\\Services\\VMTools", "Start", Data::dword(2));
    let key = format!("{}\\{{guid}}", INSTALLED[0]);
    for (installed, expected) in [
        (Some("12.3.5.22544099"), "windows-installer-there"),
        (Some("12.3.5"), "windows-installer-there"),
        (Some("13.0"), "windows-installer-there"),
        (Some(""), "windows-installer-there"),
        (None, "windows-installer-there"),
        (Some("12.3.0.22234872"), "windows-installer-staged"),
        (Some("9.9"), "windows-installer-staged"),
    ] {
        let entry = |version: &str| {
            [
                (key.as_str(), "DisplayName", Data::text("VMware Tools")),
                (key.as_str(), "DisplayVersion", Data::text(version)),
            ]
        };
        let software = installed.map(entry);
        let software = software.as_ref().map_or(&[][..], |software| &software[..]);
        let (plan, taken, steps) = run(&tree, &request, ten(), software, std::slice::from_ref(&service));
        assert_eq!(ids(&plan), [expected], "{installed:?}");
        assert_eq!((taken.len(), steps.is_empty()), (1, expected == "windows-installer-there"));
    }
}
