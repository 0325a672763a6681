//! The descriptor of a package with one disk of which nothing else is known.
//!
//! Source: DMTF DSP0243 1.1.1, sections 5 to 8; the elements of an `Item` in the alphabetical order of
//! CIM_ResourceAllocationSettingData.
//!
//! Deliberately absent: networks, firmware and the guest's system, which a disk does not tell. Processors and memory are
//! there because importers insist on them. A machine that is known is described by its hypervisor's definition instead.

use crate::create::Adapter;
use crate::units::Bytes;
use std::fmt::Write;

/// The hardware of ESXi 5.5, the oldest that takes disks of more than 2 TiB.
const HARDWARE: &str = "vmx-10";

/// Memory of the machine, in MiB: what the smallest systems of today start with.
const MEMORY_MIB: u32 = 1024;

/// What the descriptor says.
pub(super) struct Descriptor<'a> {
    /// The machine's name, any text.
    pub(super) name: &'a str,
    /// The disk's name in the package.
    pub(super) file: &'a str,
    /// Length of that file, where it is known.
    pub(super) file_len: Option<Bytes>,
    /// Size of the disk.
    pub(super) capacity: Bytes,
    /// Bytes of data in it, where they are known.
    pub(super) populated: Option<Bytes>,
    pub(super) adapter: Adapter,
}

impl Descriptor<'_> {
    /// The text.
    pub(super) fn render(&self) -> String {
        let name = escape(self.name);
        let file = escape(self.file);
        let size = self.file_len.map(|len| format!(" ovf:size=\"{}\"", len.0)).unwrap_or_default();
        let populated =
            self.populated.map(|len| format!(" ovf:populatedSize=\"{}\"", len.0)).unwrap_or_default();
        let capacity = self.capacity.0;
        let mut out = format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
    <File ovf:id="file1" ovf:href="{file}"{size}/>
  </References>
  <DiskSection>
    <Info>The disk</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte"{populated} ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <VirtualSystem ovf:id="machine">
    <Info>A machine around one disk. Only the disk was known: set processors, memory, firmware, network and the guest's system before it starts.</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="1">
      <Info>The guest's system is not known</Info>
      <Description>Other</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>{HARDWARE}</vssd:VirtualSystemType>
      </System>
"#
        );
        // ResourceType in CIM_ResourceAllocationSettingData: 3 processor, 4 memory, 5 IDE, 6 SCSI, 17 disk.
        let (bus, kind, sub_type) = match self.adapter {
            Adapter::LsiLogic => ("SCSI controller 0", 6, Some("lsilogic")),
            Adapter::BusLogic => ("SCSI controller 0", 6, Some("buslogic")),
            Adapter::PvScsi => ("SCSI controller 0", 6, Some("VirtualSCSI")),
            Adapter::Ide => ("IDE controller 0", 5, None),
        };
        let number = |element: &'static str, value: u32| (element, value.to_string());
        let text = |element: &'static str, value: &str| (element, value.to_owned());
        item(
            &mut out,
            &[
                text("AllocationUnits", "hertz * 10^6"),
                text("Description", "Number of virtual processors"),
                text("ElementName", "1 virtual processor"),
                number("InstanceID", 1),
                number("ResourceType", 3),
                number("VirtualQuantity", 1),
            ],
        );
        item(
            &mut out,
            &[
                text("AllocationUnits", "byte * 2^20"),
                text("Description", "Memory size"),
                ("ElementName", format!("{MEMORY_MIB} MB of memory")),
                number("InstanceID", 2),
                number("ResourceType", 4),
                number("VirtualQuantity", MEMORY_MIB),
            ],
        );
        let mut controller = vec![
            number("Address", 0),
            text("Description", bus),
            text("ElementName", bus),
            number("InstanceID", 3),
        ];
        controller.extend(sub_type.map(|sub_type| text("ResourceSubType", sub_type)));
        controller.push(number("ResourceType", kind));
        item(&mut out, &controller);
        item(
            &mut out,
            &[
                number("AddressOnParent", 0),
                text("ElementName", "Hard disk 1"),
                text("HostResource", "ovf:/disk/disk1"),
                number("InstanceID", 4),
                number("Parent", 3),
                number("ResourceType", 17),
            ],
        );
        out.push_str("    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n");
        out
    }
}

fn item(out: &mut String, elements: &[(&str, String)]) {
    out.push_str("      <Item>\n");
    for (element, value) in elements {
        let _ = writeln!(out, "        <rasd:{element}>{value}</rasd:{element}>");
    }
    out.push_str("      </Item>\n");
}

/// Text as XML can hold it: what XML 1.0 has no way to say becomes a question mark.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out() {
        let name = "</Name>\"&\u{1}é";
        let descriptor = Descriptor {
            name,
            file: "disk1.vmdk",
            file_len: None,
            capacity: Bytes(512),
            populated: None,
            adapter: Adapter::default(),
        };
        let text = descriptor.render();
        assert!(text.contains("<Name>&lt;/Name&gt;&quot;&amp;?é</Name>"), "{text}");
        assert_eq!(text.matches("</Name>").count(), 1);
    }
}
