//! The agents: which services, drivers and entries of theirs start by themselves.
//!
//! Sources: the services of real guests (VMware Tools, VirtualBox additions), the drivers' own sources (Xen, virtio-win,
//! QEMU), vendors' manuals for the rest.

use crate::target::Platform;

/// One agent.
pub(super) struct Agent {
    /// After `--keep` and `--drop`, and in findings.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Services and drivers that have nothing to do elsewhere, by their keys. Those that are filters are known by standing
    /// in a list of filters.
    pub services: &'static [&'static str],
    /// Values of `CurrentVersion\Run`.
    pub run: &'static [&'static str],
    /// Where it belongs.
    pub platforms: &'static [Platform],
}

const NOWHERE: Agent = Agent { name: "", title: "", services: &[], run: &[], platforms: &[] };

/// Miniports of disk controllers, network cards and displays: without their device nothing of them runs, and with it the
/// machine may start from them. They are never touched, whosever agent they came with.
pub(super) const DEVICES: &[&str] = &[
    "pvscsi",
    "vmxnet3ndis6",
    "vmxnet3n61x64",
    "vmxnet3n61x86",
    "vmxnet",
    "vm3dmp",
    "viostor",
    "vioscsi",
    "netkvm",
    "xenvbd",
    "xenvif",
    "xennet",
    "VBoxVideo",
    "VBoxWddm",
    "prl_eth5",
];

pub(super) const TABLE: &[Agent] = &[
    Agent {
        name: "vmware-tools",
        title: "VMware Tools",
        services: &[
            "VMTools",
            "VGAuthService",
            "vmvss",
            "vm3dservice",
            "VMUpgradeHelper",
            "VMware Physical Disk Helper Service",
            "VMwareCAFManagementAgentHost",
            "VMwareCAFCommAmqpListener",
            "GISvc",
            "vmci",
            "vsock",
            "vmhgfs",
            "vmmouse",
            "VMUsbMouse",
            "VMRawDsk",
            "VMMemCtl",
            "vmdebug",
            "vnetflt",
            "vnetWFP",
            "vsepflt",
        ],
        run: &["VMware User Process", "VMware Tools", "VMware VM3DService Process"],
        platforms: &[Platform::Esxi],
    },
    Agent {
        name: "xen-guest-tools",
        title: "the Xen guest tools",
        services: &[
            "xenfilt",
            "scsifilt",
            "xen",
            "xenbus",
            "xeniface",
            "xenbus_monitor",
            "xenagent",
            "XenGuestAgent",
            "xensvc",
            "xenlite",
            "xenhid",
            "xenvkbd",
            "xenevtchn",
            "xennet6",
            "xenvif_monitor",
            "xenvbd_monitor",
            "InstallAgent",
            "XenInstall",
        ],
        platforms: &[Platform::Xen],
        ..NOWHERE
    },
    Agent {
        name: "qemu-guest-agent",
        title: "the QEMU guest agent",
        services: &["QEMU-GA", "QEMU Guest Agent VSS Provider"],
        platforms: &[Platform::Kvm],
        ..NOWHERE
    },
    Agent {
        name: "virtio-services",
        title: "the services of virtio-win",
        services: &["BalloonService", "VirtioFsSvc"],
        platforms: &[Platform::Kvm, Platform::Ahv],
        ..NOWHERE
    },
    Agent {
        name: "spice-agent",
        title: "the SPICE agent",
        services: &["spice-agent", "vdservice", "vdagent"],
        platforms: &[Platform::Kvm],
        ..NOWHERE
    },
    Agent {
        name: "nutanix-guest-tools",
        title: "Nutanix Guest Tools",
        services: &[
            "Nutanix Guest Agent",
            "Nutanix Guest Tools Agent",
            "Nutanix Self Service Restore Gateway",
            "Nutanix VSS Provider",
        ],
        platforms: &[Platform::Ahv],
        ..NOWHERE
    },
    Agent {
        name: "virtualbox-guest-additions",
        title: "the VirtualBox guest additions",
        services: &["VBoxService", "VBoxGuest", "VBoxSF", "VBoxMouse"],
        run: &["VBoxTray"],
        ..NOWHERE
    },
    Agent {
        name: "parallels-tools",
        title: "Parallels Tools",
        services: &[
            "Parallels Tools Service",
            "Parallels Coherence Service",
            "prl_tools_service",
            "prl_strg",
            "prl_boot",
            "prl_tg",
            "prl_fs",
            "prl_fs_freeze",
            "prl_memdev",
            "prl_mouf",
            "prl_mou",
            "prl_kbdf",
            "prl_dd",
            "prl_time",
            "prl_sound",
            "prl_uprof",
            "prl_umdd",
            "prl_vid",
        ],
        run: &["Parallels Tools Center", "ParallelsToolsCenter", "SharedIntApp"],
        ..NOWHERE
    },
    Agent {
        name: "azure-agent",
        title: "Azure's VM agent",
        services: &["WindowsAzureGuestAgent", "RdAgent", "WindowsAzureTelemetryService"],
        platforms: &[Platform::Azure],
        ..NOWHERE
    },
    Agent {
        name: "google-guest-agent",
        title: "Google's guest agent",
        services: &["GCEAgent", "google_osconfig_agent", "GCEAgentManager"],
        ..NOWHERE
    },
    Agent {
        name: "amazon-ec2-agent",
        title: "Amazon's EC2 agent",
        services: &["Ec2Config", "Amazon EC2Launch", "AWSLiteAgent"],
        ..NOWHERE
    },
];

/// The agent that a platform wants, by its name in [`TABLE`], and how it is installed. `None` where Windows has it.
pub(super) fn wanted(platform: Platform) -> Option<(&'static str, &'static str)> {
    Some(match platform {
        Platform::Kvm => (
            "qemu-guest-agent",
            "Run guest-agent\\qemu-ga-x86_64.msi, or virtio-win-guest-tools.exe, of the virtio-win ISO in the guest",
        ),
        Platform::Ahv => {
            ("nutanix-guest-tools", "Mount Nutanix Guest Tools from Prism and run setup.exe in the guest")
        }
        Platform::Esxi => {
            ("vmware-tools", "Mount VMware Tools from the vSphere client and run setup64.exe in the guest")
        }
        Platform::Azure => {
            ("azure-agent", "Run WindowsAzureVmAgent.msi of github.com/Azure/WindowsVMAgent in the guest")
        }
        Platform::Xen => (
            "xen-guest-tools",
            "Run the installer of XenServer VM Tools for Windows, or of XCP-ng's Windows PV tools, in the guest",
        ),
        Platform::Hyperv => return None,
    })
}
