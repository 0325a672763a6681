//! What surrounds the machines of an OVF: files, disks, machines, configurations, properties.
//!
//! Source: DMTF DSP0243 1.1.1 and 2.1.1, sections 7 to 9; VMware's OVF 0.9, in which every section is a `Section` and every
//! machine a `Content` with its kind in `xsi:type`, as oVirt still writes it.

use super::units;
use crate::hypervisor::Choice;
use crate::hypervisor::xml::Element;
use landfall_image::{Bytes, Error, Result};
use std::collections::HashMap;

/// A file of the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, or its address in the network.
    pub href: String,
    /// Its length, where the descriptor tells.
    pub size: Option<Bytes>,
    /// It is compressed with this: `gzip`.
    pub compression: Option<String>,
    /// It is cut into pieces, which have numbers behind their names.
    pub chunked: bool,
}

/// A disk of the package.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// Size as the guest sees it.
    pub(super) capacity: Option<Bytes>,
    /// Id of its file; none for an empty disk.
    pub(super) file: Option<String>,
    /// Id of the disk that it holds the changes of.
    pub(super) parent: Option<String>,
    /// The format, by a URL.
    pub(super) format: String,
    /// oVirt's own words: bus, format of the volume, whether it is started from.
    pub(super) interface: String,
    pub(super) volume_format: String,
    pub(super) boots: bool,
}

/// A read envelope.
pub(super) struct Envelope<'a> {
    pub(super) files: HashMap<String, File>,
    pub(super) disks: HashMap<String, Disk>,
    /// The chosen machine.
    pub(super) system: &'a Element,
    /// The chosen configuration.
    pub(super) configuration: Option<String>,
    /// Names of sections that nothing is made of.
    pub(super) unread: Vec<String>,
    properties: HashMap<String, String>,
}

/// The kind of a section: its name, or for OVF 0.9 its type.
pub(super) fn kind(element: &Element) -> &str {
    let typed = matches!(element.name.as_str(), "Section" | "Content");
    let name = if typed { element.attribute("xsi:type").unwrap_or("Section") } else { &element.name };
    let name = name.rsplit(':').next().unwrap_or(name);
    name.strip_suffix("_Type").unwrap_or(name)
}

/// The first section of a kind.
pub(super) fn section<'a>(within: &'a Element, wanted: &str) -> Option<&'a Element> {
    within.children.iter().find(|child| kind(child) == wanted)
}

fn sections<'a>(within: &'a Element, wanted: &'a str) -> impl Iterator<Item = &'a Element> {
    within.children.iter().filter(move |child| kind(child) == wanted)
}

/// Refuses what is no envelope, or one of a version that does not exist yet.
pub(super) fn check(root: &Element) -> Result<()> {
    if root.name != "Envelope" {
        return Err(Error::corrupt(format!("is no OVF: its root is <{}>, not <Envelope>", root.name)));
    }
    let declared = match root.prefix.as_str() {
        "" => root.attribute("xmlns"),
        prefix => root
            .attributes
            .iter()
            .find(|(name, _)| name.strip_prefix("xmlns:") == Some(prefix))
            .map(|(_, v)| v.as_str()),
    };
    let space = declared.unwrap_or_default().trim_end_matches('/');
    let known = [
        "schemas.dmtf.org/ovf/envelope/1",
        "schemas.dmtf.org/ovf/envelope/2",
        "schemas.dmtf.org/ovf/1/envelope",
        "www.vmware.com/schema/ovf/1/envelope",
    ];
    match known.iter().any(|known| space.strip_prefix("http://") == Some(*known)) {
        true => Ok(()),
        false => Err(Error::unsupported(format!(
            "is an OVF of an unknown version ({space:?}); 0.9, 1.x and 2.x are read"
        ))),
    }
}

/// Its files, in the order of their references.
pub(super) fn files(root: &Element) -> Result<Vec<(String, File)>> {
    let mut out = Vec::new();
    for file in
        root.children.iter().filter(|child| child.name == "References").flat_map(|all| all.all("File"))
    {
        let (Some(id), Some(href)) = (file.attribute("id"), file.attribute("href")) else {
            return Err(Error::corrupt("refers to a file without an id or a name"));
        };
        let size = file
            .attribute("size")
            .filter(|text| !text.is_empty())
            .map(|text| units::bytes(text, ""))
            .transpose()?;
        let compression = file.attribute("compression").filter(|name| !matches!(*name, "" | "identity"));
        out.push((
            id.to_owned(),
            File {
                href: href.to_owned(),
                size,
                compression: compression.map(str::to_ascii_lowercase),
                chunked: file.attribute("chunkSize").is_some_and(|size| !matches!(size, "" | "0")),
            },
        ));
    }
    Ok(out)
}

/// Reads the envelope, and finds the machine and the configuration of `choice`.
pub(super) fn read<'a>(root: &'a Element, choice: &Choice) -> Result<Envelope<'a>> {
    check(root)?;
    let mut systems = Vec::new();
    find_systems(root, &mut systems);
    let system = choose_system(&systems, choice)?;
    let configuration = choose_configuration(root, choice)?;
    let mut envelope = Envelope {
        files: files(root)?.into_iter().collect(),
        disks: HashMap::new(),
        system,
        configuration,
        unread: Vec::new(),
        properties: HashMap::new(),
    };
    envelope.read_properties(root);
    envelope.read_properties(system);
    for section in sections(root, "DiskSection") {
        for disk in section.all("Disk") {
            envelope.read_disk(disk)?;
        }
    }
    const READ: &[&str] = &[
        "References",
        "DiskSection",
        "NetworkSection",
        "DeploymentOptionSection",
        "VirtualSystem",
        "VirtualSystemCollection",
        "Strings",
    ];
    let rest = root.children.iter().map(kind).filter(|name| !READ.contains(name));
    envelope.unread.extend(rest.map(str::to_owned));
    Ok(envelope)
}

/// Every machine, those of collections too. The tree's depth is limited where it is read.
fn find_systems<'a>(within: &'a Element, out: &mut Vec<&'a Element>) {
    for child in &within.children {
        match kind(child) {
            "VirtualSystem" => out.push(child),
            "VirtualSystemCollection" => find_systems(child, out),
            _ => {}
        }
    }
}

/// A machine's name: what its element is called, else its id.
pub(super) fn name(system: &Element) -> &str {
    system.text_at("Name").or(system.attribute("id")).unwrap_or_default()
}

fn choose_system<'a>(systems: &[&'a Element], choice: &Choice) -> Result<&'a Element> {
    let names = || {
        let ids =
            systems.iter().take(64).map(|system| system.attribute("id").unwrap_or_else(|| name(system)));
        ids.collect::<Vec<_>>().join(", ")
    };
    match (&choice.system, systems) {
        (_, []) => Err(Error::unsupported("holds no machine: there is no VirtualSystem in it")),
        (None, [only]) => Ok(only),
        (None, several) => Err(Error::refused(format!("holds {} machines", several.len()))
            .hint(format!("choose one with --system: {}", names()))),
        (Some(wanted), systems) => {
            let by_id = systems.iter().find(|system| system.attribute("id") == Some(wanted.as_str()));
            let found = by_id.or_else(|| systems.iter().find(|system| name(system) == wanted));
            found.copied().ok_or_else(|| {
                Error::refused(format!("holds no machine {wanted:?}"))
                    .hint(format!("its machines: {}", names()))
            })
        }
    }
}

/// The chosen configuration, the one that is marked as the usual one, or the first.
fn choose_configuration(root: &Element, choice: &Choice) -> Result<Option<String>> {
    let all: Vec<&Element> =
        sections(root, "DeploymentOptionSection").flat_map(|section| section.all("Configuration")).collect();
    let id = |option: &Element| option.attribute("id").unwrap_or_default().to_owned();
    let Some(wanted) = &choice.configuration else {
        let usual = all.iter().find(|option| matches!(option.attribute("default"), Some("true" | "1")));
        return Ok(usual.or(all.first()).map(|option| id(option)));
    };
    match all.iter().any(|option| option.attribute("id") == Some(wanted)) {
        true => Ok(Some(wanted.clone())),
        false => {
            let ids: Vec<String> = all.iter().take(64).map(|option| id(option)).collect();
            Err(Error::refused(format!("has no configuration {wanted:?}")).hint(match ids.is_empty() {
                true => "leave out --configuration: it has only one".to_owned(),
                false => format!("its configurations: {}", ids.join(", ")),
            }))
        }
    }
}

impl Envelope<'_> {
    /// True for an element that is meant for the chosen configuration, or for all.
    pub(super) fn is_chosen(&self, element: &Element) -> bool {
        element.attribute("configuration").is_none_or(|names| {
            names.split_whitespace().any(|name| Some(name) == self.configuration.as_deref())
        })
    }

    fn read_properties(&mut self, within: &Element) {
        let mut all = 0_usize;
        for product in sections(within, "ProductSection") {
            for property in product.all("Property") {
                all += 1;
                let Some(key) = property.attribute("key") else { continue };
                let own = property
                    .all("Value")
                    .find(|value| value.attribute("configuration").is_some() && self.is_chosen(value));
                let value = own.unwrap_or(property).attribute("value").unwrap_or_default().to_owned();
                let (class, instance) = (product.attribute("class"), product.attribute("instance"));
                let whole =
                    [class, Some(key), instance].into_iter().flatten().filter(|part| !part.is_empty());
                self.properties.insert(whole.collect::<Vec<_>>().join("."), value.clone());
                self.properties.entry(key.to_owned()).or_insert(value);
            }
        }
        if all > 0 {
            self.unread.push(format!("ProductSection ({all} properties that its guest is told)"));
        }
    }

    /// `text`, or what the property in it, `${name}`, holds.
    pub(super) fn resolve<'t>(&'t self, text: &'t str) -> Result<&'t str> {
        let Some(key) = text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Ok(text);
        };
        let value = self.properties.get(key).filter(|value| !value.is_empty());
        value.map(String::as_str).ok_or_else(|| {
            Error::unsupported(format!("leaves {text} to be asked at the deployment"))
                .hint(format!("write a value for the property {key} into the descriptor"))
        })
    }

    fn read_disk(&mut self, disk: &Element) -> Result<()> {
        let text = |name: &str| disk.attribute(name).filter(|text| !text.is_empty());
        let Some(id) = text("diskId") else { return Err(Error::corrupt("has a disk without a diskId")) };
        let capacity = match (text("capacity"), text("size")) {
            (Some(capacity), _) => {
                let unit = text("capacityAllocationUnits").unwrap_or_default();
                // A size that is asked for is only needed where the disk is used.
                self.resolve(capacity).ok().map(|capacity| units::bytes(capacity, unit)).transpose()?
            }
            // oVirt's, in GiB.
            (None, Some(size)) => Some(units::bytes(size, "GB")?),
            (None, None) => None,
        };
        let own = |name: &str| text(name).unwrap_or_default().to_ascii_lowercase();
        let read = Disk {
            capacity,
            file: text("fileRef").map(str::to_owned),
            parent: text("parentRef").map(str::to_owned),
            format: own("format"),
            interface: own("disk-interface"),
            volume_format: own("volume-format"),
            boots: text("boot") == Some("true"),
        };
        match self.disks.insert(id.to_owned(), read) {
            None => Ok(()),
            Some(_) => Err(Error::corrupt(format!("has two disks with the id {id:?}"))),
        }
    }
}
