//! The names of what is not carried over: every member of a record that says something and is in no list here.

use super::value::Value;
use crate::hypervisor::text::one_line;
use std::collections::BTreeSet;

/// Names in one report, and letters of one.
const NAMES_AT_MOST: usize = 512;
const NAME_AT_MOST: usize = 128;

/// Members that are read, or are the pool's own book-keeping about a machine, which means nothing elsewhere.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "VM",
        &[
            // Read.
            "uuid",
            "name_label",
            "name_description",
            "tags",
            "power_state",
            "is_a_template",
            "is_a_snapshot",
            "is_control_domain",
            "is_default_template",
            "memory_static_max",
            "memory_dynamic_max",
            "memory_dynamic_min",
            "VCPUs_max",
            "VCPUs_at_startup",
            "HVM_boot_policy",
            "HVM_boot_params",
            "domain_type",
            "platform",
            "bios_strings",
            "other_config",
            "NVRAM",
            "VBDs",
            "VIFs",
            "VTPMs",
            "VGPUs",
            "VUSBs",
            "attached_PCIs",
            "suspend_VDI",
            "reference_label",
            "PV_bootloader",
            "PV_kernel",
            "PV_ramdisk",
            "PV_args",
            "PV_bootloader_args",
            "PV_legacy_args",
            // Book-keeping.
            "allowed_operations",
            "current_operations",
            "resident_on",
            "scheduled_to_be_resident_on",
            "affinity",
            "memory_overhead",
            "memory_target",
            "memory_static_min",
            "consoles",
            "crash_dumps",
            "metrics",
            "guest_metrics",
            "domid",
            "domarch",
            "last_boot_CPU_flags",
            "last_booted_record",
            "snapshot_of",
            "snapshots",
            "snapshot_time",
            "snapshot_info",
            "snapshot_metadata",
            "transportable_snapshot_id",
            "parent",
            "children",
            "user_version",
            "version",
            "generation_id",
            "hardware_platform_version",
            "requires_reboot",
            "recommendations",
            "suspend_SR",
            "pending_guidances",
            "pending_guidances_recommended",
            "pending_guidances_full",
            "blobs",
            "blocked_operations",
            "is_snapshot_from_vmpp",
            "is_vmss_snapshot",
            "groups",
            "xenstore_data",
        ],
    ),
    ("VM.HVM_boot_params", &["order", "firmware"]),
    (
        "VM.platform",
        &[
            "cores-per-socket",
            "secureboot",
            "timeoffset",
            "vtpm",
            "device-model",
            "acpi",
            "apic",
            "nx",
            "pae",
            "viridian",
            "hpet",
            "vga",
            "videoram",
            "device_id",
            "usb",
            "usb_tablet",
            "stdvga",
            "featureset",
            "generation-id",
            "nic_type",
            "acpi_laptop_slate",
            "viridian_time_ref_count",
            "viridian_reference_tsc",
            "viridian_apic_assist",
            "viridian_crash_ctl",
            "viridian_stimer",
        ],
    ),
    (
        "VM.bios_strings",
        &[
            "system-manufacturer",
            "system-product-name",
            "system-version",
            "system-serial-number",
            "bios-vendor",
            "bios-version",
            "hp-rombios",
        ],
    ),
    (
        "VM.other_config",
        &[
            "base_template_name",
            "mac_seed",
            "import_task",
            "install-methods",
            "linux_template",
            "default_template",
            "pci",
            "instant",
        ],
    ),
    (
        "VBD",
        &[
            "uuid",
            "VM",
            "VDI",
            "type",
            "userdevice",
            "device",
            "bootable",
            "mode",
            "empty",
            "unpluggable",
            "status_code",
            "status_detail",
            "allowed_operations",
            "current_operations",
            "currently_attached",
            "metrics",
            "storage_lock",
            "runtime_properties",
            "qos_supported_algorithms",
        ],
    ),
    (
        "VDI",
        &[
            "uuid",
            "virtual_size",
            "sharable",
            "on_boot",
            "type",
            "SR",
            "location",
            "VBDs",
            "name_label",
            "name_description",
            "physical_utilisation",
            "allowed_operations",
            "current_operations",
            "crash_dumps",
            "storage_lock",
            "parent",
            "missing",
            "managed",
            "sm_config",
            "is_a_snapshot",
            "snapshot_of",
            "snapshots",
            "snapshot_time",
            "metadata_latest",
            "metadata_of_pool",
            "is_tools_iso",
            "cbt_enabled",
            "allow_caching",
            "read_only",
            "blobs",
            "xenstore_data",
        ],
    ),
    (
        "VIF",
        &[
            "uuid",
            "VM",
            "network",
            "device",
            "MAC",
            "MAC_autogenerated",
            "MTU",
            "locking_mode",
            "allowed_operations",
            "current_operations",
            "currently_attached",
            "metrics",
            "status_code",
            "status_detail",
            "runtime_properties",
            "qos_supported_algorithms",
            "ipv4_configuration_mode",
            "ipv6_configuration_mode",
        ],
    ),
];

/// What members hold where nobody chose anything.
const USUAL: &[(&str, &str)] = &[
    ("VM.HVM_shadow_multiplier", "1"),
    ("VM.HVM_shadow_multiplier", "1.0"),
    ("VM.actions_after_shutdown", "destroy"),
    ("VM.actions_after_softreboot", "soft_reboot"),
    ("VM.actions_after_reboot", "restart"),
    ("VM.actions_after_crash", "restart"),
];

/// Names so far.
#[derive(Default)]
pub(super) struct Unread(BTreeSet<String>);

impl Unread {
    /// Adds a name.
    pub(super) fn add(&mut self, name: &str) {
        // A definition with more is no definition.
        if self.0.len() < NAMES_AT_MOST {
            self.0.insert(one_line(&name.chars().take(NAME_AT_MOST).collect::<String>()));
        }
    }

    /// Adds the names of the members of a record that nothing reads.
    pub(super) fn record(&mut self, class: &str, record: &Value) {
        let known = KNOWN.iter().find(|(own, _)| *own == class).map_or(&[][..], |(_, names)| names);
        for (name, value) in record.members() {
            let path = format!("{class}.{name}");
            // Maps that are read in part are looked through.
            if KNOWN.iter().any(|(own, _)| *own == path) {
                self.record(&path, value);
            } else if !known.contains(&name.as_str()) && !value.is_empty() && !is_usual(&path, value) {
                self.add(&path);
            }
        }
    }

    pub(super) fn names(self) -> Vec<String> {
        self.0.into_iter().collect()
    }
}

fn is_usual(path: &str, value: &Value) -> bool {
    matches!(value, Value::Text(text) if USUAL.contains(&(path, text)))
}
