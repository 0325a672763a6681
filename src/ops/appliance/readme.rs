//! What lies beside the images for people: for each, the few commands that make a machine of it.

use super::build;
use super::image::BuiltImage;
use landfall_image::Result;
use std::path::{Path, PathBuf};

/// Where it lies, for an image.
pub fn place(image: &Path) -> PathBuf {
    image.with_extension("README.txt")
}

/// Writes one for the images of each name and folder.
///
/// # Errors
/// `Io`
pub fn write(images: &mut [BuiltImage]) -> Result<()> {
    let mut places: Vec<PathBuf> = images.iter().map(|image| place(Path::new(&image.path))).collect();
    places.sort();
    places.dedup();
    for at in places {
        let mut text = BEGIN.to_owned();
        for image in images.iter_mut().filter(|image| place(Path::new(&image.path)) == at) {
            let file = Path::new(&image.path).file_name().unwrap_or_default().to_string_lossy().into_owned();
            text.push_str(&format!("\n{file}\n{}\n", "-".repeat(file.chars().count())));
            text.push_str(&about(&image.kind, &file));
            image.beside.push(at.display().to_string());
        }
        build::beside(&at, text.as_bytes(), false)?;
    }
    Ok(())
}

const BEGIN: &str = "\
The machine of a recovery site. Make a machine of one of these images, attach an EMPTY second disk for the vault (the largest empty one is taken;
a disk with content never is), start it, and look at its screen: it shows its address, the authority's fingerprint and, once, the administrator's token.
Every script looks for its image beside itself, changes nothing where something is in the way, and says what: copy them together.
";

/// The commands, for one image; the machine is called as the image is.
fn about(kind: &str, file: &str) -> String {
    let name = file.rsplit_once('.').map_or(file, |(name, _)| name);
    let text = match kind {
        "ova" => {
            "\
VMware vSphere: Deploy OVF Template in the client, which asks for address, gateway, DNS and NTP; or
    ovftool --name=# --datastore=DATASTORE --network=NETWORK --prop:landfall.ip=10.0.0.5/24 --prop:landfall.gateway=10.0.0.1 \\
        % vi://USER@HOST/
    (empty properties: DHCP). Then add a hard disk to the machine, and switch it on.
"
        }
        "vmdk" => {
            "\
VMware Workstation, Fusion: open the .vmx beside it, add a hard disk, switch it on.
ESXi starts no such image: take the OVA, or unpack it on a host (vmkfstools -i % landfall-esxi.vmdk).
"
        }
        "vhdx" => {
            "\
Hyper-V, in an elevated PowerShell:
    .\\%.hyperv.register.ps1 -SwitchName LAN
    Add-VMHardDiskDrive -VMName # -Path (New-VHD D:\\landfall-data.vhdx -SizeBytes 2TB).Path
    Start-VM #
"
        }
        "vhd-azure" => {
            "\
Azure (a fixed VHD in whole MiB):
    az storage blob upload --auth-mode login --type page --account-name ACCOUNT --container-name CONTAINER --name % --file %
    az disk create -g GROUP -n # --os-type Linux --hyper-v-generation V2 \\
        --source https://ACCOUNT.blob.core.windows.net/CONTAINER/%
    az vm create -g GROUP -n # --attach-os-disk # --os-type Linux --subnet SUBNET_ID --data-disk-sizes-gb 2048
"
        }
        "qcow2" | "raw" => {
            "\
libvirt:
    ./%.kvm.register.sh /var/lib/libvirt/images
    virsh vol-create-as default landfall-data.qcow2 2T --format qcow2
    virsh attach-disk # /var/lib/libvirt/images/landfall-data.qcow2 sdb --subdriver qcow2 --targetbus scsi --config
    virsh start #
Proxmox VE, on a node:
    ./%.proxmox.register.sh STORAGE ID
    qm set ID --scsi1 STORAGE:2048
    qm start ID
Nutanix AHV, on a controller VM, with this folder on a web server:
    ./%.ahv.register.sh https://SERVER/FOLDER CONTAINER NETWORK
    acli vm.disk_create # create_size=2T container=CONTAINER
    acli vm.on #
QEMU alone:
    qemu-img create -f qcow2 landfall-data.qcow2 2T
    ./%.kvm.qemu.sh -- -drive file=landfall-data.qcow2,if=virtio
"
        }
        "iso" => {
            "\
Any machine with a drive (a virtual one of a management controller, too), or a USB stick: dd if=% of=/dev/sdX bs=4M conv=fsync
Start the machine from it, with an empty disk of 2 GiB or more attached: settings, certificates and the vault are kept there.
A newer disc in place of this one is the update.
"
        }
        "update" => {
            "\
For appliances that were built with --update-key of the key that it is signed with, from images, not discs:
    ssh root@ADDRESS landfall appliance update - < %
"
        }
        _ => "",
    };
    text.replace('%', file).replace('#', name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_that_is_named_is_there() {
        for (ending, kind) in [("qcow2", "qcow2"), ("raw", "raw"), ("vhdx", "vhdx")] {
            let file = format!("lf.{ending}");
            let text = about(kind, &file);
            let size = landfall_boot::appliance::layout::image_size();
            let beside = super::super::define::beside(&Path::new("/x").join(&file), kind, size).unwrap();
            let scripts =
                beside.iter().filter(|artifact| artifact.name.contains("register") || artifact.executable);
            let mut count = 0;
            for script in scripts {
                assert!(text.contains(&script.name), "{}: {text}", script.name);
                count += 1;
            }
            assert_eq!(text.matches(&format!("{file}.")).count(), count, "{text}");
        }
        assert!(about("ova", "lf.ova").contains("lf.ova vi://USER@HOST/"));
        assert!(about("iso", "lf.iso").contains("if=lf.iso"));
    }
}
