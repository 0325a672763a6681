//! Records of xapi's data model with every field that an importer may ask for.
//!
//! Newer importers fill in what is missing, older ones (XenServer 7, XCP-ng 8.0) refuse a record that lacks a field, and all of
//! them pass over fields that they do not know: so every field of every release is written.

use super::value::{NULL, Value};

/// An object of the export.
pub(super) fn object(class: &str, id: &str, record: Vec<(String, Value)>) -> Value {
    Value::Struct(vec![
        ("class".into(), Value::text(class)),
        ("id".into(), Value::text(id)),
        ("snapshot".into(), Value::Struct(record)),
    ])
}

/// A record: the fields that were chosen, and the usual values of all others.
pub(super) fn record(usual: &[(&str, Usual)], chosen: Vec<(&str, Value)>) -> Vec<(String, Value)> {
    let mut out: Vec<(String, Value)> =
        usual.iter().map(|(name, usual)| ((*name).to_owned(), usual.value())).collect();
    for (name, value) in chosen {
        match out.iter_mut().find(|(own, _)| own == name) {
            Some((_, old)) => *old = value,
            None => out.push((name.to_owned(), value)),
        }
    }
    out
}

/// What a field holds where nobody chose anything.
#[derive(Clone, Copy)]
pub(super) enum Usual {
    Text(&'static str),
    Null,
    False,
    True,
    One,
    Map,
    List,
    Epoch,
}

impl Usual {
    fn value(self) -> Value {
        match self {
            Usual::Text(text) => Value::text(text),
            Usual::Null => Value::text(NULL),
            Usual::False => Value::Bool(false),
            Usual::True => Value::Bool(true),
            Usual::One => Value::Double("1"),
            Usual::Map => Value::Struct(Vec::new()),
            Usual::List => Value::Array(Vec::new()),
            Usual::Epoch => Value::Date("19700101T00:00:00Z"),
        }
    }
}

use Usual::{Epoch, False, List, Map, Null, One, Text, True};

/// VM
pub(super) const VM: &[(&str, Usual)] = &[
    ("uuid", Text("")),
    ("allowed_operations", List),
    ("current_operations", Map),
    ("power_state", Text("Halted")),
    ("name_label", Text("")),
    ("name_description", Text("")),
    ("user_version", Text("1")),
    ("is_a_template", False),
    ("is_default_template", False),
    ("suspend_VDI", Null),
    ("resident_on", Null),
    ("scheduled_to_be_resident_on", Null),
    ("affinity", Null),
    ("memory_overhead", Text("0")),
    ("memory_target", Text("0")),
    ("memory_static_max", Text("0")),
    ("memory_dynamic_max", Text("0")),
    ("memory_dynamic_min", Text("0")),
    ("memory_static_min", Text("0")),
    ("VCPUs_params", Map),
    ("VCPUs_max", Text("1")),
    ("VCPUs_at_startup", Text("1")),
    ("actions_after_softreboot", Text("soft_reboot")),
    ("actions_after_shutdown", Text("destroy")),
    ("actions_after_reboot", Text("restart")),
    ("actions_after_crash", Text("restart")),
    ("consoles", List),
    ("VIFs", List),
    ("VBDs", List),
    ("VUSBs", List),
    ("crash_dumps", List),
    ("VTPMs", List),
    ("PV_bootloader", Text("")),
    ("PV_kernel", Text("")),
    ("PV_ramdisk", Text("")),
    ("PV_args", Text("")),
    ("PV_bootloader_args", Text("")),
    ("PV_legacy_args", Text("")),
    ("HVM_boot_policy", Text("BIOS order")),
    ("HVM_boot_params", Map),
    ("HVM_shadow_multiplier", One),
    ("platform", Map),
    ("PCI_bus", Text("")),
    ("other_config", Map),
    ("domid", Text("-1")),
    ("domarch", Text("")),
    ("last_boot_CPU_flags", Map),
    ("is_control_domain", False),
    ("metrics", Null),
    ("guest_metrics", Null),
    ("last_booted_record", Text("")),
    ("recommendations", Text("")),
    ("xenstore_data", Map),
    ("ha_always_run", False),
    ("ha_restart_priority", Text("")),
    ("is_a_snapshot", False),
    ("snapshot_of", Null),
    ("snapshots", List),
    ("snapshot_time", Epoch),
    ("transportable_snapshot_id", Text("")),
    ("blobs", Map),
    ("tags", List),
    ("blocked_operations", Map),
    ("snapshot_info", Map),
    ("snapshot_metadata", Text("")),
    ("parent", Null),
    ("children", List),
    ("bios_strings", Map),
    ("protection_policy", Null),
    ("is_snapshot_from_vmpp", False),
    ("snapshot_schedule", Null),
    ("is_vmss_snapshot", False),
    ("appliance", Null),
    ("start_delay", Text("0")),
    ("shutdown_delay", Text("0")),
    ("order", Text("0")),
    ("VGPUs", List),
    ("attached_PCIs", List),
    ("suspend_SR", Null),
    ("version", Text("0")),
    ("generation_id", Text("")),
    ("hardware_platform_version", Text("0")),
    ("has_vendor_device", False),
    ("requires_reboot", False),
    ("reference_label", Text("")),
    ("domain_type", Text("hvm")),
    ("NVRAM", Map),
    ("pending_guidances", List),
    ("pending_guidances_recommended", List),
    ("pending_guidances_full", List),
    ("groups", List),
];

/// SR. An import puts every disk into the one that it is told.
pub(super) const SR: &[(&str, Usual)] = &[
    ("uuid", Text("")),
    ("name_label", Text("")),
    ("name_description", Text("")),
    ("allowed_operations", List),
    ("current_operations", Map),
    ("VDIs", List),
    ("PBDs", List),
    ("virtual_allocation", Text("0")),
    ("physical_utilisation", Text("0")),
    ("physical_size", Text("0")),
    ("type", Text("ext")),
    ("content_type", Text("user")),
    ("shared", False),
    ("other_config", Map),
    ("tags", List),
    ("sm_config", Map),
    ("blobs", Map),
    ("local_cache_enabled", False),
    ("introduced_by", Null),
    ("clustered", False),
    ("is_tools_sr", False),
];

/// VDI
pub(super) const VDI: &[(&str, Usual)] = &[
    ("uuid", Text("")),
    ("name_label", Text("")),
    ("name_description", Text("")),
    ("allowed_operations", List),
    ("current_operations", Map),
    ("SR", Null),
    ("VBDs", List),
    ("crash_dumps", List),
    ("virtual_size", Text("0")),
    ("physical_utilisation", Text("0")),
    ("type", Text("user")),
    ("sharable", False),
    ("read_only", False),
    ("other_config", Map),
    ("storage_lock", False),
    ("location", Text("")),
    ("managed", True),
    ("missing", False),
    ("parent", Null),
    ("xenstore_data", Map),
    ("sm_config", Map),
    ("is_a_snapshot", False),
    ("snapshot_of", Null),
    ("snapshots", List),
    ("snapshot_time", Epoch),
    ("tags", List),
    ("allow_caching", False),
    ("on_boot", Text("persist")),
    ("metadata_of_pool", Null),
    ("metadata_latest", False),
    ("is_tools_iso", False),
    ("cbt_enabled", False),
];

/// VBD
pub(super) const VBD: &[(&str, Usual)] = &[
    ("uuid", Text("")),
    ("allowed_operations", List),
    ("current_operations", Map),
    ("VM", Null),
    ("VDI", Null),
    ("device", Text("")),
    ("userdevice", Text("")),
    ("bootable", False),
    ("mode", Text("RW")),
    ("type", Text("Disk")),
    ("unpluggable", True),
    ("storage_lock", False),
    ("empty", False),
    ("other_config", Map),
    ("currently_attached", False),
    ("status_code", Text("0")),
    ("status_detail", Text("")),
    ("runtime_properties", Map),
    ("qos_algorithm_type", Text("")),
    ("qos_algorithm_params", Map),
    ("qos_supported_algorithms", List),
    ("metrics", Null),
];

/// VIF
pub(super) const VIF: &[(&str, Usual)] = &[
    ("uuid", Text("")),
    ("allowed_operations", List),
    ("current_operations", Map),
    ("device", Text("")),
    ("network", Null),
    ("VM", Null),
    ("MAC", Text("")),
    ("MTU", Text("1500")),
    ("other_config", Map),
    ("currently_attached", False),
    ("status_code", Text("0")),
    ("status_detail", Text("")),
    ("runtime_properties", Map),
    ("qos_algorithm_type", Text("")),
    ("qos_algorithm_params", Map),
    ("qos_supported_algorithms", List),
    ("metrics", Null),
    ("MAC_autogenerated", False),
    ("locking_mode", Text("network_default")),
    ("ipv4_allowed", List),
    ("ipv6_allowed", List),
    ("ipv4_configuration_mode", Text("None")),
    ("ipv4_addresses", List),
    ("ipv4_gateway", Text("")),
    ("ipv6_configuration_mode", Text("None")),
    ("ipv6_addresses", List),
    ("ipv6_gateway", Text("")),
];

/// network. An import looks for one of the same name.
pub(super) const NETWORK: &[(&str, Usual)] = &[
    ("uuid", Text("")),
    ("name_label", Text("")),
    ("name_description", Text("")),
    ("allowed_operations", List),
    ("current_operations", Map),
    ("VIFs", List),
    ("PIFs", List),
    ("MTU", Text("1500")),
    ("other_config", Map),
    ("bridge", Text("")),
    ("managed", True),
    ("blobs", Map),
    ("tags", List),
    ("default_locking_mode", Text("unlocked")),
    ("assigned_ips", Map),
    ("purpose", List),
];
