//! XCP-ng's script, against a pool that is played.

use super::{EVIL, Stage, hostile, networks, render, said, usual};
use std::fs;

/// A pool with two networks and a storage; `taken` answers a question that should find nothing.
fn pool(stage: &Stage, taken: &str) {
    let body = format!(
        "case \"$*\" in\n{taken}\n\
         'pool-list --minimal') echo pool ;;\n\
         'pool-param-get uuid=pool param-name=default-SR') echo sr-1 ;;\n\
         'sr-list uuid=sr-1 params=uuid --minimal') echo sr-1 ;;\n\
         'sr-list name-label=fast params=uuid --minimal') echo sr-2 ;;\n\
         'sr-list content-type=user params=name-label --minimal') echo 'Local storage,fast' ;;\n\
         'network-list name-label=lan params=uuid --minimal') echo net-1 ;;\n\
         'network-list name-label=dmz params=uuid --minimal') echo net-2 ;;\n\
         *physical-size) echo 1000000 ;;\n\
         *physical-utilisation) echo 1000 ;;\n\
         vm-import*) echo new-machine ;;\n\
         esac"
    );
    stage.program("xe", &body);
}

fn staged(machine: &landfall::machine::Machine, taken: &str) -> Stage {
    let stage = Stage::new(&render("xen", machine, None, &networks(), "/out"));
    pool(&stage, taken);
    let file = landfall::hypervisor::xen::write::file_name(&machine.name);
    fs::write(stage.path("out it's").join(file), [0; 2000]).unwrap();
    stage
}

#[test]
fn a_machine_is_imported_with_its_identity() {
    let stage = staged(&usual(), "");
    let output = stage.run(&[], &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("xe vm-start uuid=new-machine"), "{}", said(&output));
    let file = stage.path("out it's").join("web01.xva");
    let wanted = vec![
        "xe".to_owned(),
        "vm-import".into(),
        format!("filename={}", file.display()),
        "sr-uuid=sr-1".into(),
        "preserve=true".into(),
    ];
    assert_eq!(stage.calls_of(&["xe", "vm-import"]), [wanted]);
    assert!(
        stage.calls_of(&["xe", "vtpm-create"]).is_empty()
            && stage.calls_of(&["xe", "vm-param-set"]).is_empty()
    );
    // A storage that is named.
    let output = stage.run(&["fast"], &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(stage.calls_of(&["xe", "vm-import"])[0][3], "sr-uuid=sr-2");
}

#[test]
fn hostile_names_stay_words_and_the_rest_is_set() {
    let stage = staged(&hostile(), "");
    let output = stage.run(&[], &[("TIMEOFFSET", "-3600")]);
    assert!(output.status.success(), "{}", said(&output));
    let asked = stage.calls_of(&["xe", "vm-list"]);
    assert!(asked.iter().any(|call| call[2] == format!("name-label={EVIL}")), "{asked:?}");
    assert_eq!(
        stage.calls_of(&["xe", "vm-param-set"])[0][2..],
        ["uuid=new-machine", "platform:timeoffset=-3600"]
    );
    assert_eq!(stage.calls_of(&["xe", "vtpm-create"])[0][2], "vm-uuid=new-machine");
    // Without a word, this host's offset: a number.
    stage.run(&[], &[("TZ", "IST-05:30")]);
    assert_eq!(stage.calls_of(&["xe", "vm-param-set"])[0][3], "platform:timeoffset=19800");
}

#[test]
fn what_is_taken_or_missing_stops_it_before_anything_is_imported() {
    let id = "7b10d7af-b932-4c66-b2c3-3996152ec465";
    for (taken, says) in [
        (format!("'vm-list uuid={id} '*) echo x ;;"), "with the id"),
        (format!("'template-list uuid={id} '*) echo x ;;"), "with the id"),
        (format!("'snapshot-list uuid={id} '*) echo x ;;"), "with the id"),
        ("'vm-list name-label=web01 '*) echo x ;;".into(), "with the name web01"),
        (
            "'vif-list MAC=00:50:56:00:12:a1 '*) echo other ;;".into(),
            "other has a network card with the address 00:50:56:00:12:a1",
        ),
        ("'network-list name-label=dmz '*) ;;".into(), "there is no network dmz"),
        ("'network-list name-label=dmz '*) echo a,b ;;".into(), "several networks are called dmz"),
        ("'sr-list uuid=sr-1 '*) ;;".into(), "no default storage"),
        ("*physical-utilisation) echo 999000 ;;".into(), "has 1000 bytes free, and the machine needs 2000"),
        ("'pool-list --minimal') exit 1 ;;".into(), "cannot reach a pool"),
    ] {
        let stage = staged(&usual(), &taken);
        let output = stage.run(&[], &[]);
        assert!(!output.status.success() && said(&output).contains(says), "{says}: {}", said(&output));
        assert!(stage.calls_of(&["xe", "vm-import"]).is_empty(), "{says}");
    }
    let stage = staged(&usual(), "");
    let output = stage.run(&["nowhere"], &[]);
    assert!(
        said(&output).contains("there is no storage nowhere") && said(&output).contains("Local storage,fast")
    );
    fs::remove_file(stage.path("out it's").join("web01.xva")).unwrap();
    assert!(said(&stage.run(&[], &[])).contains("web01.xva is not there"));
}
