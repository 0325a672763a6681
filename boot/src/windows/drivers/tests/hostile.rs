//! INF files, catalogues and programs that are made to hurt.

use super::*;
use inf::Inf;
use inf::install::Package;
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn read(bytes: &[u8]) {
    if let Ok(inf) = Inf::parse(bytes) {
        let _ = Package::read(&inf, &ten());
    }
}

#[test]
fn large_files_are_read_or_refused_in_time() {
    let version = "[Version]\nClassGuid={4D36E97B-E325-11CE-BFC1-08002BE10318}\nDriverVer=01/01/2020,1.0\n";
    let start = Instant::now();
    for text in [
        "a".repeat(10 << 20),
        "\\".repeat(10 << 20),
        "\\ ".repeat(5 << 20),
        "\"".repeat(10 << 20),
        ",".repeat(10 << 20),
        "%".repeat(10 << 20),
        "=".repeat(10 << 20),
        "[".repeat(10 << 20),
        "[a]\n".repeat(2 << 20),
        " ".repeat(10 << 20),
        (0..100_000).map(|number| format!("[{number}]\n")).collect(),
        format!("[Strings]\n{}", "a=%a%%a%%a%\n".repeat(100_000)),
        format!("[Strings]\na={}\n{version}Provider={}", "x".repeat(4000), "%a%".repeat(1000)),
        format!("{version}[Manufacturer]\n{}", "a=b,NTamd64\n".repeat(1000))
            + &"[b.NTamd64]\n%d%=i,x\n".repeat(1000),
        format!(
            "{version}[Manufacturer]\na=b,NTamd64\n[b.NTamd64]\nd=i,x\n[i]\nAddReg={}\n[r]\n{}",
            "r,".repeat(9000),
            "HKR,,a,,b\n".repeat(9000)
        ),
        format!(
            "{version}[SourceDisksFiles]\n{}",
            (0..9000).map(|n| format!("f{n}=1\n")).collect::<String>()
        ),
        format!(
            "{version}[Manufacturer]\na=b,NTamd64\n[b.NTamd64]\n{}",
            (0..9000).map(|n| format!("d=i{n},x\n[i{n}]\n[b.NTamd64]\n")).collect::<String>()
        ),
        // The same work, asked for a thousand times.
        format!(
            "{version}[Manufacturer]\na=b,NTamd64\n[b.NTamd64]\n{}{}[r]\n{}",
            (0..3000).map(|n| format!("d=i{n},x\n")).collect::<String>(),
            (0..3000)
                .map(|n| format!("[i{n}]\nAddReg=r\n[i{n}.Services]\nAddService=s,2,r\n"))
                .collect::<String>(),
            "HKR,,a,,b\n".repeat(8000)
        ),
    ] {
        read(text.as_bytes());
    }
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn values_and_names_that_lead_elsewhere_are_refused() {
    let file = |line: &str| {
        format!(
            "[Version]\nClassGuid={{4D36E97B-E325-11CE-BFC1-08002BE10318}}\nDriverVer=01/01/2020,1.0\n\
             [Manufacturer]\na=b,NTamd64\n[b.NTamd64]\nd=i,PCI\\X\n[i]\nAddReg=r\nCopyFiles=c\n[c]\nx.sys\n[r]\nHKR,,a,,b\n{line}\n"
        )
    };
    let read = |line: &str| Package::read(&Inf::parse(file(line).as_bytes()).unwrap(), &ten());
    assert!(read("").is_ok());
    for line in [
        "HKR,a\\\\b,n,,x",
        &format!("HKR,{},n,,x", "a\\".repeat(40)),
        &format!("HKR,{},n,,x", "a".repeat(300)),
        "HKR,,n,flags,x",
        "HKR,,n,0x10001,number",
        "HKR,,n,1,xy",
        "[c]\n..\\x.sys",
        "[c]\nC:\\x.sys",
        "[c]\nx.sys,con|,,",
        "[c]\nx.sys:stream",
        "[b.NTamd64]\nd=i,PCI\\\\X",
        "[b.NTamd64]\nd=i,PCI\u{1}",
        "[Version]\n[i.Services]\nAddService=a\\b,2,s",
        "[i.Services]\nAddService=a,2,s,l,,..\\b",
    ] {
        assert!(read(line).is_err(), "{line}");
    }
    // Other roots are left to Windows.
    assert_eq!(read("HKLM,Software\\x,n,,x").unwrap(), read("").unwrap());
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_something(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read(&bytes);
        let _ = signature::Program::parse(&bytes);
        let _ = signature::Catalogue::parse(&bytes);
        let _ = signature::file_version(&bytes);
    }

    /// Sound packages with a byte or two changed.
    #[test]
    fn damage_is_never_a_panic(changes in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..4), file in 0usize..3) {
        let recipe = Recipe::ten(Driver::Balloon);
        let mut source = MemSource::default();
        for (at, (name, mut bytes)) in recipe.files().into_iter().enumerate() {
            for (place, byte) in &changes {
                let length = bytes.len();
                if at == file {
                    bytes[usize::try_from(*place).unwrap() % length] = *byte;
                }
            }
            source.0.insert(format!("Balloon/w10/amd64/{name}"), bytes);
        }
        let guest = Guest::ten();
        let (installed, plan) = guest.plan(Some(&source), &[Driver::Balloon]);
        prop_assert!(installed.has(Driver::Balloon) || plan.edits.is_empty());
        for edit in &plan.edits {
            prop_assert!(edit.path.starts_with("/Windows/") && !edit.path.contains("/../"));
        }
    }
}
