//! The devices of a Hyper-V machine: which class an id in the manifest stands for.
//!
//! A configuration's manifest lists devices by the id of their class and that of their instance; the instance's keys
//! stand in `_INSTANCE_`. Devices that every machine has carry one id for both, and up to 2012 R2 the manifest leaves them out.
//! Source: the manifests of real configurations, and the classes that public readers and editors of them list.

use super::tree::Node;

/// What becomes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The IDE controllers of generation 1.
    Ide,
    /// A SCSI controller.
    Scsi,
    /// The floppy drive.
    Floppy,
    /// Serial ports.
    Serial,
    /// A network card.
    Nic,
    /// An emulated network card, a DEC 21140.
    LegacyNic,
    /// BIOS or UEFI, and what the guest reads from SMBIOS.
    Bios,
    /// A physical device of the host.
    Passthrough,
    /// A service of the integration components.
    Integration,
    /// Part of every machine.
    Part,
    /// None of these.
    Unknown,
}

impl Class {
    /// What its keys are called in lists of keys.
    pub fn word(self) -> &'static str {
        match self {
            Class::Ide => "ide",
            Class::Scsi => "scsi",
            Class::Floppy => "floppy",
            Class::Serial => "serial",
            Class::Nic | Class::LegacyNic => "nic",
            Class::Bios => "bios",
            Class::Passthrough => "passthrough",
            Class::Integration => "integration",
            Class::Part => "part",
            Class::Unknown => "device",
        }
    }
}

/// Ids of classes, in lower case.
const CLASSES: &[(&str, Class)] = &[
    ("83f8638b-8dca-4152-9eda-2ca8b33039b4", Class::Ide),
    ("d422512d-2bf2-4752-809d-7b82b5fcb1b4", Class::Scsi),
    ("8f0d2762-0b00-4e04-af4f-19010527cb93", Class::Floppy),
    ("8e3a359f-559a-4b6a-98a9-1690a6100ed7", Class::Serial),
    ("2fc216b0-d2e2-4967-9b6d-b8a5c9ca2778", Class::Nic),
    ("ac6b8dc1-3257-4a70-b1b2-a9c9215659ad", Class::Bios),
    // PCI Express (discrete device assignment) and partitions of a GPU.
    ("2fcc454e-a36a-4c77-bb5e-a2d75a51f02c", Class::Passthrough),
    ("99dcd00c-fbd6-42d3-9dfd-1b5ad7058f61", Class::Passthrough),
    // Time, values, shutdown, heartbeat, backup, guest services, remote desktop.
    ("2497f4de-e9fa-4204-80e4-4b75c46419c0", Class::Integration),
    ("2a34b1c2-fd73-4043-8a5b-dd2159bc743f", Class::Integration),
    ("9f8233ac-be49-4c79-8ee3-e7e1985b2077", Class::Integration),
    ("84eaae65-2f2e-45f5-9bb5-0e857dc8eb47", Class::Integration),
    ("5ced1297-4598-4915-a5fc-ad21bb4d02a4", Class::Integration),
    ("6c09bb55-d683-4da0-8931-c9bf705f6480", Class::Integration),
    ("6c5addb9-a11a-4e8e-84cb-e6208201db63", Class::Integration),
    // Input, video, consoles, activation.
    ("197f74e3-b84b-46de-8ae6-82f1cd181cdc", Class::Part),
    ("58f75a6d-d949-4320-99e1-a2a2576d581c", Class::Part),
    ("de6cdc86-e1fb-4940-801b-c3c1a26c4da4", Class::Part),
    ("f3cf6965-e8d3-44a9-9b7d-a04245ea7525", Class::Part),
    ("7d80d3db-61ee-4879-8879-5609f1100ad0", Class::Part),
    ("ba8735ef-e3a9-4f1b-badd-dbf3a5909915", Class::Part),
    ("9cb98db1-4d09-4538-a192-2d3d8c0b6cdb", Class::Part),
    ("9ed5fd4b-40c3-4de3-8597-98ecd17035da", Class::Part),
    ("bc12c717-8898-4688-8ee4-2cd14894f8ea", Class::Part),
    ("deaeeed3-4119-4b44-95cf-a73604b76971", Class::Part),
    // Buses, clocks, interrupts, memory, the TPM that every machine of generation 2 can switch on.
    ("d41a1872-3740-41ce-a1ee-4522ab82f991", Class::Part),
    ("e51b7ef6-4a7f-4780-aaae-d4b291aacd2e", Class::Part),
    ("e3c82929-edb4-475e-85a4-29aaa2a30c2d", Class::Part),
    ("736e6aa9-a3f8-49c0-9550-a963214d259a", Class::Part),
    ("917bd8cb-3bb6-4124-9383-b7d21ac07f79", Class::Part),
    ("9edd1639-9bca-40dc-b3a2-07c828da60b5", Class::Part),
    ("72682fc4-040a-430a-be0b-224574b953fe", Class::Part),
    ("84535fad-4d98-4a6a-bdcd-21d5720dc430", Class::Part),
    ("4d42d9f7-6531-4f6c-9e46-1f0477876104", Class::Part),
    ("db8b9818-b4bb-4725-b99d-b4612716b6b4", Class::Part),
    ("4d46d139-7821-4dc4-98a3-01e98a586a44", Class::Part),
    ("35b0b12f-a0d7-482f-80a0-f52f1ab3da2e", Class::Part),
    ("a28e4d02-3323-4148-9569-565930a5cb39", Class::Part),
    ("655bc5c5-a784-46b7-81bc-e26328f7eb0e", Class::Part),
    ("87045ce9-5323-438f-93bb-1e83dcbce18e", Class::Part),
];

/// Words in the names of devices whose class has no known id.
const NAMES: &[(&str, Class)] = &[
    ("fibre", Class::Passthrough),
    ("fiber", Class::Passthrough),
    ("pci express", Class::Passthrough),
    ("gpu", Class::Passthrough),
    ("3d", Class::Passthrough),
    ("emulated ethernet", Class::LegacyNic),
    ("legacy network", Class::LegacyNic),
    ("ethernet", Class::Nic),
    ("scsi controller", Class::Scsi),
];

/// A device.
pub struct Device<'a> {
    /// What it is.
    pub class: Class,
    /// What the manifest calls it.
    pub name: &'a str,
    /// Its keys, where it has any.
    pub keys: Option<&'a Node>,
}

/// The devices of a configuration in the order of its manifest; before them those that it does not list.
pub fn of(configuration: &Node) -> Vec<Device<'_>> {
    let mut listed = Vec::new();
    if let Some(manifest) = configuration.child("manifest") {
        for (_, row) in manifest.numbered("vdev") {
            let id = bare(row.text("device").unwrap_or_default());
            let name = row.text("name").unwrap_or_default();
            let instance = bare(row.text("instance").unwrap_or_default());
            listed.push((
                instance.clone(),
                Device { class: class(&id, name), name, keys: keys(configuration, &instance) },
            ));
        }
    }
    let mut all = Vec::new();
    for node in &configuration.children {
        let Some(id) = instance(&node.name) else { continue };
        if !listed.iter().any(|(listed, _)| *listed == id) {
            all.push(Device { class: class(&id, ""), name: "", keys: Some(node) });
        }
    }
    all.extend(listed.into_iter().map(|(_, device)| device));
    all
}

fn class(id: &str, name: &str) -> Class {
    let name = name.to_ascii_lowercase();
    let by_id = CLASSES.iter().find(|(known, _)| *known == id);
    let found = by_id.or_else(|| NAMES.iter().find(|(word, _)| name.contains(word)));
    found.map_or(Class::Unknown, |(_, class)| *class)
}

/// The id in the name of an instance's key: `_83f8638b-8dca-4152-9eda-2ca8b33039b4_`, in lower case.
pub fn instance(name: &str) -> Option<String> {
    let id = name.strip_prefix('_')?.strip_suffix('_')?;
    (id.len() == 36).then(|| id.to_ascii_lowercase())
}

fn keys<'a>(configuration: &'a Node, instance: &str) -> Option<&'a Node> {
    (!instance.is_empty()).then(|| configuration.child(&format!("_{instance}_"))).flatten()
}

fn bare(id: &str) -> String {
    id.trim_matches(['{', '}']).to_ascii_lowercase()
}
