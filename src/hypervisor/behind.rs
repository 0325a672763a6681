//! What stays at the source though the whole definition and all disks are read: the UEFI variables and the secrets in a TPM. It
//! follows from the machine, so that it is told in one way, whoever reads the definition.

use crate::finding;
use crate::machine::Machine;
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;

/// What of a machine lies neither in its definition nor on its disks: its UEFI variables and the secrets in its TPM. No
/// parser has to tell of them.
pub(super) fn findings(machine: &Machine) -> impl Iterator<Item = Finding> {
    let variables = (machine.firmware == Firmware::Uefi).then(|| {
        let file = machine.nvram.as_ref().map(|file| format!(" in {file}")).unwrap_or_default();
        finding::NVRAM.finding(
            format!(
                "The UEFI variables{file} stay at the source: boot entries, their order, and enrolled keys."
            ),
            "",
        )
    });
    let secrets = machine.tpm.then(|| {
        finding::TPM.finding(
            "The machine has a virtual TPM, and what is sealed in it stays at the source: BitLocker asks for its recovery key at \
             the first start, LUKS for a passphrase.",
            "Have them at hand. While the source runs: Windows shows the key with manage-bde -protectors -get C:, Linux tells with \
             systemd-cryptenroll DEVICE whether there is a password or recovery key beside the TPM.",
        )
    });
    variables.into_iter().chain(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::{Choice, READERS, hyperv};

    const OVF: &str = "<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1' xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1' \
        xmlns:rasd='http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData' \
        xmlns:vmw='http://www.vmware.com/schema/ovf'>\
        <References><File ovf:id='nvram' ovf:href='web01.nvram'/></References>\
        <VirtualSystem ovf:id='web01'><Info/><VirtualHardwareSection><Info/>\
        <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>\
        <Item><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>\
        <rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item>\
        <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>1</rasd:ResourceType><rasd:ResourceSubType>vmware.vtpm</rasd:ResourceSubType></Item>\
        <vmw:Config vmw:key='firmware' vmw:value='efi'/><vmw:ExtraConfig vmw:key='nvram' vmw:value='ovf:/file/nvram'/>\
        </VirtualHardwareSection></VirtualSystem></Envelope>";

    const XVA: &str = "<value><struct><member><name>version</name><value><struct/></value></member><member><name>objects</name>\
        <value><array><data><value><struct><member><name>class</name><value>VM</value></member><member><name>id</name>\
        <value>Ref:1</value></member><member><name>snapshot</name><value><struct>\
        <member><name>name_label</name><value>web01</value></member>\
        <member><name>memory_static_max</name><value>1073741824</value></member>\
        <member><name>HVM_boot_policy</name><value>BIOS order</value></member><member><name>HVM_boot_params</name><value><struct>\
        <member><name>firmware</name><value>uefi</value></member></struct></value></member>\
        <member><name>NVRAM</name><value><struct><member><name>EFI-variables</name><value>eA==</value></member></struct></value></member>\
        <member><name>platform</name><value><struct><member><name>vtpm</name><value>true</value></member></struct></value></member>\
        </struct></value></member></struct></value></data></array></value></member></struct></value>";

    /// A definition of a machine with UEFI and a TPM, in the words of each reader, and the file of its variables where it names one.
    fn definition(reader: &str) -> (Vec<u8>, &'static str) {
        let (text, file) = match reader {
            "vmx" => (
                "config.version = 8\nfirmware = efi\nnvram = web01.nvram\nvtpm.present = TRUE\n",
                "web01.nvram",
            ),
            "proxmox" => (
                "name: web01\nmemory: 512\nbios: ovmf\nefidisk0: local:100/vars.raw,efitype=4m\ntpmstate0: local:100/tpm.raw,version=v2.0\n",
                "local:100/vars.raw",
            ),
            "ahv" => (
                r#"{"spec":{"name":"web01","resources":{"memory_size_mib":512,"num_sockets":1,"num_vcpus_per_socket":1,
                "boot_config":{"boot_type":"UEFI"},"vtpm_config":{"vtpm_enabled":true},"disk_list":[],"nic_list":[]}},"metadata":{"kind":"vm"}}"#,
                "",
            ),
            "hyperv-xml" => (
                "<configuration><properties><name type='string'>web01</name><subtype type='integer'>1</subtype></properties>\
                 <settings><memory><bank><size type='integer'>512</size></bank></memory></settings>\
                 <security><settings><tpm_enabled type='bool'>True</tpm_enabled></settings></security></configuration>",
                "",
            ),
            "libvirt" => (
                "<domain type='kvm'><name>web01</name><memory unit='MiB'>512</memory><os firmware='efi'><type>hvm</type>\
                 <nvram>/vars/web01.fd</nvram></os><devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices></domain>",
                "/vars/web01.fd",
            ),
            "ovf" => (OVF, "web01.nvram"),
            "xva" => (XVA, "VM.NVRAM"),
            "vmcx" => return (hyperv::vmcx::tests::second_generation(), ""),
            other => panic!("there is no machine with UEFI and a TPM in the words of {other:?} here"),
        };
        (text.as_bytes().to_vec(), file)
    }

    #[test]
    fn every_reader_tells_of_variables_and_secrets_in_one_way() {
        for reader in READERS {
            let (bytes, file) = definition(reader.name);
            let parsed =
                (reader.parse)(&bytes, &Choice::default()).unwrap_or_else(|e| panic!("{}: {e}", reader.name));
            let all = parsed.all_findings();
            let told = |id: &str| all.iter().filter(|finding| finding.id == id).collect::<Vec<_>>();
            let (variables, secrets) = (told(finding::NVRAM.id), told(finding::TPM.id));
            assert_eq!((variables.len(), secrets.len()), (1, 1), "{}: {all:#?}", reader.name);
            assert!(variables[0].says.contains(file), "{}: {}", reader.name, variables[0].says);
            assert!(
                secrets[0].says.contains("BitLocker") && secrets[0].remedy.contains("manage-bde"),
                "{}",
                reader.name
            );
        }
    }

    #[test]
    fn a_machine_without_them_hears_nothing() {
        let mut machine = Machine::new("a", landfall_image::Bytes::gib(1));
        // A file of variables that BIOS does not have.
        machine.nvram = Some("a.nvram".into());
        assert_eq!(findings(&machine).count(), 0);
    }
}
