//! Settings of a .vmx that have no meaning anywhere else: they are not carried over, and nobody needs to hear of them.
//!
//! Source: VMware's own files (137 of other producers, and what ESXi 8 writes), and its documentation of single settings.
//! Deliberately absent: what changes the machine that the guest sees, and what its owner wrote for the guest (guestinfo.*):
//! that is named.

/// Patterns in lower case: `#` stands for digits, `*` at the end for anything, `*:` for the place of a disk.
const NO_MEANING: &[&str] = &[
    // The file itself.
    ".encoding",
    "config.version",
    "virtualhw.version",
    "virtualhw.productcompatibility",
    "extendedconfigfile",
    "deploymentplatform",
    "policy.vm.mvmtid",
    "vmxstats.filename",
    "vm.createdate",
    "viv.moid",
    "vio.imageid",
    "config.readonly",
    "invmteam",
    // Where it lay, and who it was there. The id that the guest sees is uuid.bios.
    "uuid.location",
    "uuid.action",
    "vc.uuid",
    "vm.genid",
    "vm.genidx",
    "workingdir",
    "migrate.*",
    "vmotion.*",
    "snapshot.*",
    "replay.*",
    "ftcpt.*",
    "faulttolerance.*",
    "hbr*",
    "ctkenabled",
    "vmci#.*",
    "messagebus.*",
    "nvp.*",
    // What it was doing.
    "cleanshutdown",
    "softpoweroff",
    "checkpoint.vmstate.readonly",
    "numa.autosize.*",
    "monitor.*",
    "hostcpuid.*",
    "guestcpuid.*",
    "usercpuid.*",
    "evccompatibilitymode",
    "guestos.detailed.data",
    "guestinfo.detailed.data",
    "guestinfo.appinfo",
    "guestosaltname",
    "cpuid.corespersocket.cookie",
    "debugstub.*",
    "log.*",
    "logging",
    "vmx.log.*",
    "svga.*",
    "mks.*",
    "remotedisplay.*",
    "vmrest.*",
    "gui.*",
    "memtrimrate",
    "disable_acceleration",
    // How its hypervisor shared out the host, and turned machines off.
    "sched.*",
    "powertype.*",
    "priority.*",
    "memallowautoscaledown",
    "mainmem.*",
    "prefvmx.*",
    "numvcpus.*",
    "answer.msg.*",
    "msg.*",
    "bios.bootdelay",
    // VMware Tools: its agent in the guest, which the other hypervisor replaces.
    "tools.*",
    "toolscripts.*",
    "toolsinstallmanager.*",
    "toolsversion",
    "time.synchronize.*",
    "isolation.*",
    "guest.commands.*",
    "unity.*",
    "hgfs.*",
    "sharedfolder.maxnum",
    // The virtual board, whose parts every hypervisor has in its own way.
    "pcibridge#.*",
    "pcibridge#:#.*",
    "hpet#.*",
    "chipset.*",
    "board-id",
    "board-id.reflecthost",
    "smc.*",
    "ich7m.*",
    "buslogic.nodriver",
    "scsi#.pcislotnumber",
    "scsi#.saswwid",
    "sata#.pcislotnumber",
    "nvme#.pcislotnumber",
    "nvme#.subnqnuuid",
    "usb.pcislotnumber",
    "usb_xhci.pcislotnumber",
    "ehci.pcislotnumber",
    "sound.pcislotnumber",
    "vmci.pcislotnumber",
    // Of a disk: how it is opened, and how its changes are tracked.
    "*:redo",
    "*:ctkenabled",
    "*:writethrough",
    "*:throughputcap",
    "*:shares",
    "*:startconnected",
    "*:autodetect",
    "*:allowguestconnectioncontrol",
    "ide#.present",
    // Of a network card.
    "ethernet#.generatedaddressoffset",
    "ethernet#.pcislotnumber",
    "ethernet#.checkmacaddress",
    "ethernet#.uptcompatibility",
    "ethernet#.features",
    "ethernet#.wakeonpcktrcv",
    "ethernet#.linkstatepropagation.enable",
    "ethernet#.allowguestconnectioncontrol",
    "ethernet#.displayname",
    "ethernet#.dvs.*",
    "ethernet#.opaquenetwork.*",
    "ethernet#.externalid",
    "ethernet#.pvnid",
];

/// Settings that only say something when they are set to more than nothing.
const NOTHING_WHEN_OFF: &[&str] = &[
    "vcpu.hotadd",
    "vcpu.hotremove",
    "mem.hotadd",
    "disk.enableuuid",
    "vhv.enable",
    "vvtd.enable",
    "vbs.enable",
    "nestedhv.enabled",
    "smbios.reflecthost",
    "smbios.assettag",
    "scsi#.sharedbus",
    "checkpoint.vmstate",
    "rtc.difffromutc",
    "usb.present",
    "ehci.present",
    "usb_xhci.present",
];

/// True for a setting, by its name in lower case and its value, that says nothing to another hypervisor.
pub(in crate::hypervisor) fn has_no_meaning_elsewhere(key: &str, value: &str) -> bool {
    let key = pattern_of(key);
    let of_a_disk =
        ["scsi", "sata", "nvme", "ide"].iter().find_map(|kind| key.strip_prefix(kind)?.strip_prefix("#:#."));
    let is = |pattern: &&&str| match (pattern.strip_prefix("*:"), pattern.strip_suffix('*')) {
        (Some(setting), _) => of_a_disk == Some(setting),
        (None, Some(prefix)) => key.starts_with(prefix),
        (None, None) => key == **pattern,
    };
    let value = value.trim();
    let is_off = value.is_empty()
        || value == "0"
        || ["false", "none", "no"].iter().any(|word| value.eq_ignore_ascii_case(word));
    NO_MEANING.iter().find(is).is_some() || is_off && NOTHING_WHEN_OFF.iter().find(is).is_some()
}

/// The key with one `#` in place of each number that follows a letter or a colon: `scsi0:1.mode` is `scsi#:#.mode`.
fn pattern_of(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for letter in key.chars() {
        match (letter.is_ascii_digit(), out.ends_with('#')) {
            (true, true) => {}
            (true, false) => out.push('#'),
            (false, _) => out.push(letter),
        }
    }
    // Digits inside of words of the table are numbers of devices only.
    out.replace("ich#m", "ich7m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookkeeping_is_known_and_what_the_guest_sees_is_not() {
        for (key, value, known) in [
            ("pcibridge4.virtualdev", "pcieRootPort", true),
            ("sched.cpu.min", "0", true),
            ("scsi0:1.redo", "", true),
            ("scsi0:1.virtualssd", "1", false),
            ("vcpu.hotadd", "FALSE", true),
            ("vcpu.hotadd", "TRUE", false),
            ("guestinfo.userdata", "x", false),
            ("hypervisor.cpuid.v0", "FALSE", false),
            ("ethernet0.filter0.name", "x", false),
            ("disk.enableuuid", "true", false),
        ] {
            assert_eq!(has_no_meaning_elsewhere(key, value), known, "{key} = {value}");
        }
    }
}
