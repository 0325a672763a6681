//! The target's agent, put into a Windows machine by the real program: a package of more than a hundred megabytes arrives to the
//! byte, read by ntfscat, with the step that runs it. wixl makes the package. Nothing runs here: what the step does with one is
//! proven with Wine's Windows Installer.

use super::virtio::cat;
use super::{Guest, findings, have, machine, to_raw, volume};
use crate::boots::{fingerprint, landfall, place, text};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package that calls itself so, with a file of that many MiB in it that no compression makes smaller.
fn package(folder: &Path, name: &str, product: &str, mib: usize) -> PathBuf {
    let source = format!(
        r#"<?xml version="1.0"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
 <Product Name="{product}" Id="*" UpgradeCode="12345678-1234-4321-8765-1234567890ab" Language="1033" Version="108.0.2" Manufacturer="Somebody">
  <Package InstallerVersion="200" Compressed="yes" InstallScope="perMachine"/>
  <Media Id="1" Cabinet="a.cab" EmbedCab="yes"/>
  <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="ProgramFilesFolder"><Directory Id="D" Name="Agent">
   <Component Id="C" Guid="12345678-1234-4321-8765-1234567890ac"><File Id="F" Name="agent.bin" Source="agent.bin" KeyPath="yes"/></Component>
  </Directory></Directory></Directory>
  <Feature Id="All" Level="1"><ComponentRef Id="C"/></Feature>
 </Product>
</Wix>"#
    );
    let (mut state, mut content) = (1u64, Vec::new());
    while content.len() < mib << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    fs::write(folder.join("a.wxs"), source).unwrap();
    fs::write(folder.join("agent.bin"), content).unwrap();
    let made =
        Command::new("wixl").args(["-a", "x64", "-o", name, "a.wxs"]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", text(&made));
    fs::remove_file(folder.join("agent.bin")).unwrap();
    folder.join(name)
}

fn run(verb: &[&str], given: &[&Path], source: &Path) -> Value {
    let mut command = landfall();
    command.args(verb).args(["--to", "kvm", "--json"]);
    for file in given {
        command.arg("--agent-installer").arg(file);
    }
    let output = command.arg(source).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_machine_gets_the_targets_agent() {
    let tools = ["mkntfs", "ntfs-3g", "ntfscat", "ntfsls", "sfdisk", "qemu-system-x86_64", "qemu-img"];
    if !have(&tools) || !have(&["wixl"]) {
        return;
    }
    let _place = place();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let Some(vmx) = machine(folder.path(), Guest::Plain) else { return };
    let source = fingerprint(&at("vm"));
    let ours = package(folder.path(), "qemu-ga-x86_64.msi", "QEMU guest agent", 110);
    let vmware = package(folder.path(), "VMware Tools64.msi", "VMware Tools", 1);

    let into = at("kvm");
    let report = run(&["convert", "-o", into.to_str().unwrap()], &[&vmware, &ours], &vmx);
    let found = findings(&report);
    assert!(found.contains(&"windows-installer-staged"), "{found:?}");
    assert!(
        !found.contains(&"windows-agent-missing") && !found.contains(&"windows-installer-unfit"),
        "{found:?}"
    );
    let content = fs::read(&ours).unwrap();
    assert!(content.len() > 100 << 20);
    let sha256 = format!("{:x}", Sha256::digest(&content));
    let path = "/Windows/landfall/agents/qemu-ga-x86_64.msi";
    let edit = report["edits"].as_array().unwrap().iter().find(|edit| edit["path"] == path).expect("an edit");
    assert_eq!((&edit["sha256"], &edit["size"]), (&sha256.as_str().into(), &content.len().into()));
    assert!(report.to_string().len() < 1 << 20, "what the file holds is in no report");

    let raw = at("disk.raw");
    to_raw(&into.join("win01/disk0.qcow2"), &raw);
    let c = volume(&raw, folder.path());
    assert!(cat(&c, &path[1..]) == content, "not the same bytes");
    let step = |number| String::from_utf8(cat(&c, &format!("Windows/landfall/step{number}.cmd"))).unwrap();
    let line = "msiexec.exe /i \"%SystemRoot%\\landfall\\agents\\qemu-ga-x86_64.msi\" /qn /norestart ";
    assert!(step(1).contains(line), "{}", step(1));
    let script = String::from_utf8(cat(&c, "Windows/landfall/firstboot.cmd")).unwrap();
    assert!(script.contains("rem agent qemu-guest-agent\r\ncall :step 1 1800\r\n"), "{script}");
    assert!(script.contains("del /q \"agents\\qemu-ga-x86_64.msi\""), "{script}");
    for file in [raw, c] {
        fs::remove_file(file).unwrap();
    }

    // Nothing is left to do; and where nobody gives it any more, it goes.
    let converted = into.join("win01/domain.xml");
    let again = run(&["inspect"], &[&ours], &converted);
    assert_eq!(again["edits"].as_array().unwrap().len(), 0, "{:#}", again["edits"]);
    let without = run(&["inspect"], &[], &converted);
    let edits = without["edits"].as_array().unwrap();
    assert!(edits.iter().any(|edit| edit["path"] == path && edit["what"] == "remove"), "{edits:#?}");

    // For another target only: told, and nothing of it gets there.
    let told = run(&["inspect"], &[&vmware], &vmx);
    assert!(findings(&told).contains(&"windows-installer-unfit"), "{:#}", told["findings"]);
    assert!(!told["edits"].to_string().contains("VMware Tools64.msi"));
    assert_eq!(fingerprint(&at("vm")), source, "the source stays as it was");
}
