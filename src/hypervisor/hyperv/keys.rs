//! What the keys of a configuration are for: those that the machine is made of, those that Hyper-V keeps for itself, those
//! that are as Hyper-V makes them. Every other key is named in [`unread`].

use super::devices::{self, Class};
use super::tree::Node;

#[derive(Clone, Copy)]
enum Use {
    /// The neutral machine is made of it, or a finding speaks of it.
    Read,
    /// Hyper-V's own books: ids, times, versions, owners.
    Own,
    /// Worth a word only where it has another value.
    Usual(&'static str),
}

use Use::{Own, Read, Usual};

const NONE: &str = "00000000-0000-0000-0000-000000000000";

/// Paths: `*` is any name, `**` at the end all below. The first that fits counts. The keys of devices begin with the word of
/// their class.
const KEYS: &[(&str, Use)] = &[
    ("properties/name", Read),
    ("properties/notes", Read),
    ("properties/subtype", Read),
    ("properties/type_id", Read),
    ("properties/highly_available", Usual("false")),
    ("properties/**", Own),
    ("manifest/**", Read),
    ("savedstate/**", Read),
    ("security/settings/tpm_enabled", Read),
    ("security/settings/shielding_requested", Read),
    ("security/settings/data_protection_requested", Usual("false")),
    ("security/settings/ksd_enabled", Usual("false")),
    ("security/settings/*", Usual("false")),
    ("security/**", Own),
    ("global_settings/critical_error/**", Own),
    ("global_settings/devices/generation_id", Own),
    ("global_settings/devices/cpu_architecture", Usual("1")),
    ("global_settings/devices/*", Usual("false")),
    ("global_settings/disk_merge_pending", Usual("false")),
    ("global_settings/metrics/**", Own),
    ("global_settings/owner/**", Own),
    ("global_settings/power/host_shutdown/action", Usual("1")),
    ("global_settings/power/host_startup/action", Usual("1")),
    ("global_settings/snapshots/**", Read),
    ("global_settings/unexpected_termination/action", Usual("1")),
    ("global_settings/vhd_path_acled", Own),
    ("global_settings/data_root", Own),
    ("global_settings/slp_data_root", Own),
    ("global_settings/security/**", Own),
    ("settings/global/logical_id", Own),
    ("settings/guest_controlled_cache_types", Usual("false")),
    ("settings/isolation/type", Read),
    ("settings/memory/bank/size", Read),
    ("settings/memory/bank/dynamic_memory_enabled", Read),
    // Of use with dynamic memory only, where a finding names them.
    ("settings/memory/bank/limit", Read),
    ("settings/memory/bank/reservation", Read),
    ("settings/memory/bank/target_memory_buffer", Own),
    ("settings/memory/bank/priority", Usual("5000")),
    ("settings/memory/bank/backing_type", Usual("0")),
    ("settings/memory/sgx/enabled", Usual("false")),
    ("settings/memory/sgx/*", Own),
    ("settings/memory/vnuma/max_size_per_node", Own),
    ("settings/processors/count", Read),
    ("settings/processors/hwthreads", Read),
    ("settings/processors/vnuma/**", Read),
    ("settings/processors/cpu_group_guid", Usual(NONE)),
    ("settings/processors/cpu_group_id", Usual("0")),
    ("settings/processors/features/limit", Usual("false")),
    ("settings/processors/nested_virtualization/enabled", Usual("false")),
    ("settings/processors/limit", Usual("100000")),
    ("settings/processors/reservation", Usual("0")),
    ("settings/processors/weight", Usual("100")),
    ("settings/processors/*", Usual("false")),
    ("settings/stopped_at_host_shutdown", Own),
    ("settings/topology/*", Own),
    ("settings/vnuma/enabled", Own),
    ("*/VDEVVersion", Own),
    ("*/ChannelInstanceGuid", Own),
    ("*/VpciInstanceGuid", Own),
    ("*/TargetVtl", Usual("0")),
    ("bios/bios_guid", Read),
    ("bios/bios_serial_number", Read),
    ("bios/base_board/serial_number", Read),
    ("bios/chassis/serial_number", Read),
    ("bios/chassis/asset_tag", Read),
    ("bios/boot/*", Read),
    ("bios/secure_boot_enabled", Read),
    ("bios/secure_boot_template_id", Read),
    ("bios/num_lock", Usual("false")),
    ("bios/pause_after_boot_failure", Usual("false")),
    ("bios/pxe_preferred_protocol", Own),
    ("bios/nvram/**", Read),
    ("floppy/**", Read),
    ("serial/**", Read),
    ("passthrough/**", Read),
    ("integration/Enabled", Read),
    // The resolution of the console, the place of the file with the UEFI variables.
    ("part/**", Own),
    ("ide/*/*/pathname", Read),
    ("ide/*/*/type", Read),
    ("ide/*/*/persistent_reservations_supported", Read),
    ("scsi/*/*/pathname", Read),
    ("scsi/*/*/type", Read),
    ("scsi/*/*/persistent_reservations_supported", Read),
    ("*/*/*/iops_limit", Usual("0")),
    ("*/*/*/iops_reservation", Usual("0")),
    ("*/*/*/caching_mode", Usual("0")),
    ("*/*/*/write_hardening_method", Usual("0")),
    ("*/*/*/ignore_flushes", Usual("false")),
    ("*/*/*/weight", Usual("100")),
    ("*/*/*/qos_policy_id", Usual(NONE)),
    ("nic/FriendlyName", Read),
    ("nic/MacAddress", Read),
    ("nic/MacAddressIsStatic", Read),
    ("nic/IsConnected", Read),
    ("nic/SwitchName", Read),
    ("nic/PortName", Own),
    ("nic/MediaType", Own),
    ("nic/ClusterMonitored", Usual("true")),
    ("nic/*", Usual("false")),
    ("nic/Connection/AltSwitchName", Read),
    ("nic/Connection/AltPortName", Own),
    ("nic/Connection/AuthorizationScope", Own),
    ("nic/Connection/ChimneyOffloadWeight", Own),
    ("nic/Connection/PreventIPSpoofing", Usual("false")),
    ("nic/Connection/PoolId", Usual("")),
    ("nic/Connection/TestReplica*", Usual("")),
    // Which features there are; what they say is read in the code for networks, offloads are Hyper-V's own.
    ("nic/Connection/Features/**", Read),
    ("nic/Connection/Feature_*/**", Read),
];

/// The keys of a configuration that nothing here is made of and that are not as Hyper-V makes them, by their paths.
pub fn unread(configuration: &Node) -> Vec<String> {
    let devices = devices::of(configuration);
    let mut out = Vec::new();
    for node in &configuration.children {
        let owner = devices.iter().find(|device| device.keys.is_some_and(|keys| std::ptr::eq(keys, node)));
        let start = match owner {
            Some(device) if device.class == Class::Unknown && !device.name.is_empty() => {
                device.name.to_owned()
            }
            Some(device) => device.class.word().to_owned(),
            None => node.name.clone(),
        };
        walk(node, &start, &mut out);
    }
    out
}

fn walk(node: &Node, path: &str, out: &mut Vec<String>) {
    if let Some(value) = node.shown()
        && !value.is_empty()
        && !is_known(path, &value)
    {
        out.push(path.to_owned());
    }
    for child in &node.children {
        walk(child, &format!("{path}/{}", child.name), out);
    }
}

fn is_known(path: &str, value: &str) -> bool {
    let row = KEYS.iter().find(|(pattern, _)| fits(pattern, path));
    row.is_some_and(|(_, usage)| match usage {
        Read | Own => true,
        Usual(usual) => value.eq_ignore_ascii_case(usual),
    })
}

fn fits(pattern: &str, path: &str) -> bool {
    let mut names = path.split('/');
    for part in pattern.split('/') {
        if part == "**" {
            return names.next().is_some();
        }
        let Some(name) = names.next() else { return false };
        let fits = match part.split_once('*') {
            Some((start, _)) => name.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)),
            None => name.eq_ignore_ascii_case(part),
        };
        if !fits {
            return false;
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit() {
        assert!(fits("a/**", "a/b/c") && !fits("a/**", "a"));
        assert!(fits("a/*/c", "A/b/C") && !fits("a/*/c", "a/b") && !fits("a/*", "a/b/c"));
        assert!(fits("x/Feature_*/**", "x/Feature_123/Flags") && !fits("x/Feature_*/**", "x/Features/Id"));
    }

    #[test]
    fn another_value_than_usual_is_named() {
        let leaf = |name: &str, value| Node { name: name.into(), value, children: Vec::new() };
        let node = |name: &str, children| Node { name: name.into(), children, ..Node::default() };
        let processors = node(
            "processors",
            vec![
                leaf("weight", super::super::tree::Value::Int(200)),
                leaf("limit", super::super::tree::Value::Int(100_000)),
                leaf("new_key", super::super::tree::Value::Int(1)),
            ],
        );
        let tree = node("configuration", vec![node("settings", vec![processors])]);
        assert_eq!(unread(&tree), ["settings/processors/weight", "settings/processors/new_key"]);
    }
}
