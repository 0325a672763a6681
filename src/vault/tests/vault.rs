//! The vault as a whole: cuts across machines, and what it is told of the service before.

use super::disk::Leaves;
use super::*;
use crate::name::Name;
use crate::vault::{Trouble, Troubles, Vault};
use landfall_image::Kind;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_cut_across_machines_is_one_moment() {
    let storage: Arc<dyn Storage> = Arc::new(Medium::default());
    let (vault, troubles) = Vault::on(storage, SMALL, None, "boot").unwrap();
    assert!(troubles.is_empty());
    let machines: Vec<Arc<Machine>> =
        ["web", "db"].iter().map(|name| vault.machine_or_new(&name.parse().unwrap()).unwrap()).collect();
    for machine in &machines {
        machine.journal().set_disk(&info("sda", 4096)).unwrap();
    }
    // One writer goes from machine to machine: what one has is never older than what the next has.
    let disks: Vec<_> = machines.iter().map(|machine| machine.live("sda").unwrap()).collect();
    let is_enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number: u64 = 0;
            while !is_enough.load(Ordering::Relaxed) {
                number += 1;
                for disk in &disks {
                    disk.write_at(GuestOffset(0), &number.to_le_bytes()).unwrap();
                }
            }
        });
        for time in 1..=50 {
            // Named in another order than the writer's.
            let order = [Arc::clone(&machines[1]), Arc::clone(&machines[0])];
            let (_, points) = vault.cut(&order, time, &Mark::default()).unwrap();
            let number = |machine: &Arc<Machine>, point: u64| {
                let point = machine.at(point).unwrap();
                let disk = point.disk(*point.state().disks.keys().next().unwrap()).unwrap();
                let mut buf = [0; 8];
                disk.read_at(GuestOffset(0), &mut buf).unwrap();
                u64::from_le_bytes(buf)
            };
            let (db, web) = (number(&order[0], points[0]), number(&order[1], points[1]));
            assert!(web == db || web == db + 1, "web has {web}, db {db}");
        }
        is_enough.store(true, Ordering::Relaxed);
    });
    let groups: Vec<_> =
        machines.iter().map(|machine| machine.points().unwrap().pop().unwrap().mark.group).collect();
    assert!(groups[0].is_some() && groups[0] == groups[1]);
}

#[test]
fn a_vault_is_one_process_s_and_in_a_folder_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("vault");
    let (vault, _) = Vault::open(&root).unwrap();
    let error = Vault::open(&root).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    let machine = vault.machine_or_new(&"web01".parse().unwrap()).unwrap();
    machine.journal().set_disk(&info("sda", 1 << 20)).unwrap();
    let disk = machine.live("sda").unwrap();
    disk.write_at(GuestOffset(4096), &[5; 100_000]).unwrap();
    disk.zero_at(GuestRange::new(GuestOffset(8192), Bytes(4096))).unwrap();
    let point = machine.checkpoint(1, &Mark::default()).unwrap();
    machine.journal().seal().unwrap();
    let wanted = content(&disk);
    drop((machine, disk, vault));
    let (vault, troubles) = Vault::open(&root).unwrap();
    assert!(troubles.is_empty());
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    check_point(&machine, point, &wanted);
    // Folded, on a real file system.
    for time in 2..5 {
        machine.journal().close_segment();
        machine.live("sda").unwrap().write_at(GuestOffset(time), &[1]).unwrap();
        machine.checkpoint(time, &Mark::default()).unwrap();
    }
    machine.journal().close_segment();
    let wanted = content(&machine.live("sda").unwrap());
    let done =
        upkeep::run(&machine, &"1s every 1s".parse().unwrap(), &Default::default(), 1 << 40, &|_| Ok(()))
            .unwrap();
    assert!(done.folded > 0);
    let last = machine.points().unwrap().pop().unwrap().sequence;
    check_point(&machine, last, &wanted);
    std::fs::write(dir.path().join("x"), "").unwrap();
    assert!(Vault::open(dir.path()).unwrap_err().to_string().contains("not empty"));
}

fn vault(medium: &Medium, boot: &str) -> (Vault, Troubles) {
    Vault::on(Arc::new(medium.clone()), SMALL, None, boot).unwrap()
}

/// Two machines: one with a segment that is written to, one with all of its own sealed.
fn two(vault: &Vault) {
    for name in ["open", "sealed"] {
        let machine = vault.machine_or_new(&name.parse().unwrap()).unwrap();
        machine.journal().set_disk(&info("sda", 4096)).unwrap();
        machine.live("sda").unwrap().write_at(GuestOffset(0), &[1; 512]).unwrap();
        machine.checkpoint(1, &Mark::default()).unwrap();
        if name == "sealed" {
            machine.journal().close_segment();
            machine.journal().seal().unwrap();
        }
    }
}

fn behind(troubles: &Troubles) -> Vec<&str> {
    let names = troubles.iter().map(|(name, trouble)| match trouble {
        Trouble::Behind(found) => {
            assert!(found.was_open);
            name.as_str()
        }
        Trouble::Unreadable(error) => panic!("{error}"),
    });
    names.collect()
}

#[test]
fn only_a_host_that_went_down_loses_acknowledged_writes() {
    let medium = Medium::default();
    let (first, troubles) = vault(&medium, "boot 1");
    assert!(troubles.is_empty());
    two(&first);
    assert!(medium.content("running").is_some());
    // Killed, in the same boot.
    assert!(vault(&medium.again(), "boot 1").1.is_empty());
    // Another boot.
    let after = medium.again();
    let (next, troubles) = vault(&after, "boot 2");
    assert_eq!(behind(&troubles), ["open"]);
    let (open, sealed) =
        (next.machine(&"open".parse().unwrap()).unwrap(), next.machine(&"sealed".parse().unwrap()).unwrap());
    // It takes writes, and no points; nor does a group with it, of which nobody gets a part.
    open.live("sda").unwrap().write_at(GuestOffset(0), &[2; 512]).unwrap();
    let both = [Arc::clone(&sealed), Arc::clone(&open)];
    let last = sealed.journal().last();
    assert!(next.cut(&both, 2, &Mark::default()).is_err());
    assert_eq!(sealed.journal().last(), last);
    sealed.checkpoint(2, &Mark::default()).unwrap();
    // It is so after each start, however that ends, until it has caught up.
    next.close().unwrap();
    assert!(after.content("running").is_none());
    let (next, troubles) = vault(&after, "boot 2");
    assert_eq!(behind(&troubles), ["open"]);
    next.machine(&"open".parse().unwrap()).unwrap().journal().caught_up().unwrap();
    assert!(vault(&after.again(), "boot 2").1.is_empty());
    // Closed in order: the power may go.
    first.close().unwrap();
    let error = first.machine(&"open".parse().unwrap()).unwrap().checkpoint(9, &Mark::default());
    assert_eq!(error.unwrap_err().kind(), landfall_image::Kind::Refused);
    assert!(vault(&medium.again(), "boot 2").1.is_empty());
    // What says when it ran is damaged: then nobody knows.
    let after = medium.again();
    after.put("running", Some(vec![0; 10]));
    assert_eq!(behind(&vault(&after, "boot 1").1), ["open"]);
}

#[test]
fn what_cannot_be_closed_is_not_called_closed() {
    let medium = Medium::default();
    let (vault, _) = vault(&medium, "boot 1");
    two(&vault);
    medium.fail_on(|step| matches!(step, disk::Step::Sync(_)), disk::Through::Half, 1);
    assert!(vault.close().is_err());
    assert!(medium.content("running").is_some());
}

#[test]
fn a_loss_of_power_is_not_forgotten_over_a_machine_that_could_not_be_read() {
    let medium = Medium::default();
    two(&vault(&medium, "boot 1").0);
    let identity = medium.content("machines/open/machine.json");
    medium.put("machines/open/machine.json", Some(b"{".to_vec()));
    for boot in ["boot 2", "boot 2", "boot 3"] {
        let (vault, troubles) = vault(&medium, boot);
        assert!(matches!(troubles.values().next(), Some(Trouble::Unreadable(_))), "{troubles:?}");
        assert_eq!(vault.machines().len(), 1);
        if boot == "boot 2" {
            vault.close().unwrap();
        }
    }
    medium.put("machines/open/machine.json", identity);
    // Whether it is found when the vault is opened, or later.
    let again = medium.again();
    assert_eq!(behind(&vault(&again, "boot 3").1), ["open"]);
    assert_eq!(behind(&vault(&again, "boot 3").1), ["open"]);
}

#[test]
fn the_times_of_a_cut_are_the_same_on_all_machines() {
    let medium = Medium::default();
    let (vault, _) = vault(&medium, "boot");
    let machines: Vec<_> =
        ["a", "b"].map(|name| vault.machine_or_new(&name.parse().unwrap()).unwrap()).to_vec();
    machines[0].checkpoint(5000, &Mark::default()).unwrap();
    vault.cut(&machines, 1000, &Mark::default()).unwrap();
    for machine in &machines {
        assert_eq!(machine.points().unwrap().last().unwrap().time, 5001);
    }
}

/// Whenever the power goes while a machine is taken out, it is there with all of its points, or not at all; and another one of its name begins
/// with nothing.
#[test]
fn a_machine_goes_as_a_whole_or_stays_as_a_whole() {
    let medium = Medium::default();
    let (all, _) = vault(&medium, "boot 1");
    two(&all);
    let (sealed, open): (Name, Name) = ("sealed".parse().unwrap(), "open".parse().unwrap());
    let stale = all.machine(&sealed).unwrap();
    let disk = stale.live("sda").unwrap();
    let wanted = content(&disk);
    let reader = stale.at(stale.points().unwrap()[0].sequence).unwrap();
    let error = all.remove(&sealed).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.hint_text().is_some(), "{error}");
    assert_eq!(points(&stale).len(), 1, "nothing was changed");
    drop(reader);
    let point = points(&stale)[0];
    stale.hold(point, "/recovered").unwrap();
    assert_eq!(all.remove(&sealed).unwrap_err().kind(), Kind::Refused);
    stale.release(point, "/recovered").unwrap();
    medium.record();
    all.remove(&sealed).unwrap();
    assert!(
        medium.paths().iter().all(|(path, _)| !path.starts_with("machines/sealed")),
        "{:?}",
        medium.paths()
    );
    for steps in 0..=medium.steps() {
        for leaves in [Leaves::Nothing, Leaves::All, Leaves::Some(7), Leaves::Some(11)] {
            let after = medium.cut(steps, leaves);
            let (vault, troubles) = vault(&after, "boot 1");
            assert!(troubles.is_empty(), "{steps} {leaves:?}: {troubles:?}");
            assert_eq!(points(&vault.machine(&open).unwrap()).len(), 1);
            match vault.machine(&sealed) {
                Ok(machine) => check_point(&machine, point, &wanted),
                Err(_) => {
                    let left = after.paths();
                    assert!(left.iter().all(|(path, _)| !path.starts_with("machines/sealed")), "{left:?}");
                }
            }
            assert!(steps > 0 || vault.machine(&sealed).is_ok());
        }
    }
    // Who has it still can do nothing to the one that gets its name.
    let new = all.machine_or_new(&sealed).unwrap();
    assert_ne!(new.home().machine, stale.home().machine);
    new.journal().set_disk(&info("sda", 4096)).unwrap();
    new.live("sda").unwrap().write_at(GuestOffset(0), &[9; 512]).unwrap();
    let own = new.checkpoint(1, &Mark::default()).unwrap();
    let wanted = content(&new.live("sda").unwrap());
    // Its files have the names that the other one's had.
    new.journal().close_segment();
    new.journal().seal().unwrap();
    check_point(&new, own, &wanted);
    assert_eq!(disk.write_at(GuestOffset(0), &[3; 512]).unwrap_err().kind(), Kind::Refused);
    assert!(stale.at(point).is_err() && stale.hold(point, "x").is_err());
    stale.journal().close_segment();
    let rule = "1s every 1s".parse().unwrap();
    upkeep::run(&stale, &rule, &Default::default(), 1 << 40, &|_| Ok(())).unwrap();
    check_point(&new, own, &wanted);
    let (again, _) = vault(&medium.again(), "boot 1");
    check_point(&again.machine(&sealed).unwrap(), own, &wanted);
}

#[test]
fn a_machine_is_begun_once_whoever_asks_for_it() {
    let medium = Medium::default();
    let (vault, _) = vault(&medium, "boot");
    for round in 0..20 {
        let name: Name = format!("m{round}").parse().unwrap();
        let all: Vec<Arc<Machine>> = std::thread::scope(|scope| {
            let asked: Vec<_> =
                (0..8).map(|_| scope.spawn(|| vault.machine_or_new(&name).unwrap())).collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])), "{name}");
    }
}

/// One folder that cannot be read stops nobody else's machine.
#[test]
fn what_lies_in_the_vault_and_is_none_of_its_machines_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("vault");
    {
        let (vault, _) = Vault::open(&root).unwrap();
        two(&vault);
        vault.close().unwrap();
    }
    std::fs::write(root.join("machines/web01.tar"), "x").unwrap();
    // A removal that cannot come to its end.
    std::fs::write(root.join("machines/open/gone"), "").unwrap();
    std::fs::create_dir_all(root.join("machines/open/journal/folder/of somebody")).unwrap();
    let (vault, troubles) = Vault::open(&root).unwrap();
    let unreadable: Vec<&str> = troubles.keys().map(Name::as_str).collect();
    assert_eq!(unreadable, ["open", "web01.tar"]);
    assert_eq!(vault.machines().len(), 1);
}

#[test]
fn a_sync_that_failed_while_sealing_is_never_forgotten() {
    let medium = Medium::default();
    let (vault, _) = vault(&medium, "boot");
    let machine = vault.machine_or_new(&"web".parse().unwrap()).unwrap();
    machine.journal().set_disk(&info("sda", 4096)).unwrap();
    machine.live("sda").unwrap().write_at(GuestOffset(0), &[1; 512]).unwrap();
    machine.journal().close_segment();
    medium.fail_on(|step| matches!(step, disk::Step::Sync(_)), disk::Through::Half, 1);
    assert!(machine.journal().seal().is_err());
    // The medium would say yes now, and what it lost is lost.
    let error = machine.checkpoint(1, &Mark::default()).unwrap_err();
    assert!(error.to_string().contains("lost what was written"), "{error}");
    assert!(points(&machine).is_empty());
}

#[test]
fn no_disk_is_larger_than_what_is_read() {
    let medium = Medium::default();
    let (vault, _) = vault(&medium, "boot");
    let machine = vault.machine_or_new(&"web".parse().unwrap()).unwrap();
    let huge = DiskInfo { name: "sda".into(), size: u64::MAX / 512 * 512, sector: 512 };
    let error = machine.journal().set_disk(&huge).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert_eq!(machine.disk_number("sda"), None);
}
