//! The installers that are known: what they call themselves, whose agent they bring, and how they are run without anybody at
//! the screen.
//!
//! Sources: msiexec's command line (Microsoft), WiX (bundles), and each vendor's manual for its own setup program.

use super::Form;
use serde::{Deserialize, Serialize};

/// An installer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Product {
    /// `setup64.exe`, `VMware-tools-….exe`
    VmwareTools,
    /// `qemu-ga-x86_64.msi`
    QemuGuestAgent,
    /// `virtio-win-guest-tools.exe`, which brings the QEMU guest agent, the SPICE agent and all drivers.
    VirtioWinGuestTools,
    /// `virtio-win-gt-x64.msi`
    VirtioWinDrivers,
    /// `spice-vdagent-x64-….msi`
    SpiceAgent,
    /// `setup.exe`
    NutanixGuestTools,
    /// `managementagent-x64.msi`, `XenTools-x64.msi`
    XenGuestTools,
    /// `WindowsAzureVmAgent….msi`
    AzureAgent,
    /// `VBoxWindowsAdditions-amd64.exe`
    VirtualboxAdditions,
}

/// What is known of one.
pub(super) struct Row {
    pub product: Product,
    /// The agent that it brings, by its name in the table of agents.
    pub agent: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Parts of what it calls itself, in lower case: also of its entry among the installed programs.
    pub names: &'static [&'static str],
    /// How its file's name begins, in lower case, where the file says nothing.
    pub files: &'static [&'static str],
    /// Arguments of its program; `None` where it comes as a package only. `{log}` is where it writes its log.
    pub arguments: Option<&'static str>,
}

pub(super) const ROWS: &[Row] = &[
    Row {
        product: Product::VmwareTools,
        agent: "vmware-tools",
        title: "VMware Tools",
        names: &["vmware tools"],
        files: &["vmware-tools-"],
        arguments: Some("/S /v\"/qn REBOOT=ReallySuppress\""),
    },
    Row {
        product: Product::VirtioWinGuestTools,
        agent: "qemu-guest-agent",
        title: "virtio-win-guest-tools",
        names: &["virtio-win-guest-tools"],
        files: &["virtio-win-guest-tools"],
        arguments: Some("/install /quiet /norestart /log \"{log}\""),
    },
    Row {
        product: Product::QemuGuestAgent,
        agent: "qemu-guest-agent",
        title: "the QEMU guest agent",
        names: &["qemu guest agent"],
        files: &["qemu-ga"],
        arguments: None,
    },
    Row {
        product: Product::VirtioWinDrivers,
        agent: "virtio-services",
        title: "virtio-win's drivers and services",
        names: &["virtio-win-driver-installer"],
        files: &["virtio-win-gt-"],
        arguments: None,
    },
    Row {
        product: Product::SpiceAgent,
        agent: "spice-agent",
        title: "the SPICE agent",
        names: &["spice vdagent", "spice-vdagent", "spice agent"],
        files: &["spice-vdagent"],
        arguments: None,
    },
    Row {
        product: Product::NutanixGuestTools,
        agent: "nutanix-guest-tools",
        title: "Nutanix Guest Tools",
        names: &["nutanix guest tools"],
        files: &["nutanix-guest-tools", "nutanix guest tools"],
        arguments: Some("/quiet ACCEPTEULA=yes /norestart"),
    },
    Row {
        product: Product::XenGuestTools,
        agent: "xen-guest-tools",
        title: "the Xen guest tools",
        names: &["xenserver", "citrix vm tools", "citrix hypervisor", "xcp-ng"],
        files: &["managementagent", "xentools-", "xcp-ng-"],
        arguments: None,
    },
    Row {
        product: Product::AzureAgent,
        agent: "azure-agent",
        title: "Azure's VM agent",
        names: &["azure vm agent", "azurevmagent"],
        files: &["windowsazurevmagent"],
        arguments: None,
    },
    Row {
        product: Product::VirtualboxAdditions,
        agent: "virtualbox-guest-additions",
        title: "the VirtualBox guest additions",
        names: &["virtualbox guest additions"],
        files: &["vboxwindowsadditions"],
        arguments: Some("/S"),
    },
];

impl Product {
    pub(super) fn row(self) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.product == self)
    }

    /// By what it calls itself; by the name of its file only where it says nothing.
    pub(super) fn recognise(called: Option<&str>, file: &str) -> Option<Product> {
        let file = file.to_ascii_lowercase();
        let called = called.map(str::to_ascii_lowercase);
        let is = |row: &&Row| match &called {
            Some(called) => row.names.iter().any(|name| called.contains(name)),
            None => row.files.iter().any(|start| file.starts_with(start)),
        };
        ROWS.iter().find(is).map(|row| row.product)
    }
}

impl Row {
    /// The command line that installs it: `folder` and `name` are where it lies in the guest. It never restarts by itself, and
    /// ends with 0, or 3010 (1641) where a restart is wanted. `None` where a program of it cannot be run so.
    pub fn command_line(&self, form: Form, folder: &str, name: &str) -> Option<String> {
        let (path, log) = (format!("{folder}\\{name}"), format!("{folder}\\{name}.log"));
        Some(match form {
            Form::Package => format!(
                "%SystemRoot%\\System32\\msiexec.exe /i \"{path}\" /qn /norestart REBOOT=ReallySuppress /l*v \"{log}\""
            ),
            Form::Program => format!("\"{path}\" {}", self.arguments?.replace("{log}", &log)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::agents::TABLE;

    #[test]
    fn installers_run_without_anybody() {
        let folder = "%SystemRoot%\\landfall\\agents";
        let line = |product: Product, form, name| product.row().unwrap().command_line(form, folder, name);
        assert_eq!(
            line(Product::QemuGuestAgent, Form::Package, "qemu-ga-x86_64.msi").unwrap(),
            "%SystemRoot%\\System32\\msiexec.exe /i \"%SystemRoot%\\landfall\\agents\\qemu-ga-x86_64.msi\" /qn /norestart \
             REBOOT=ReallySuppress /l*v \"%SystemRoot%\\landfall\\agents\\qemu-ga-x86_64.msi.log\""
        );
        assert_eq!(
            line(Product::VmwareTools, Form::Program, "setup64.exe").unwrap(),
            "\"%SystemRoot%\\landfall\\agents\\setup64.exe\" /S /v\"/qn REBOOT=ReallySuppress\""
        );
        assert_eq!(
            line(Product::VirtioWinGuestTools, Form::Program, "v.exe").unwrap(),
            "\"%SystemRoot%\\landfall\\agents\\v.exe\" /install /quiet /norestart /log \
             \"%SystemRoot%\\landfall\\agents\\v.exe.log\""
        );
        assert_eq!(line(Product::XenGuestTools, Form::Program, "setup.exe"), None);
    }

    #[test]
    fn the_table_is_sound() {
        for row in ROWS {
            assert!(TABLE.iter().any(|agent| agent.name == row.agent), "{}", row.agent);
            assert_eq!(ROWS.iter().filter(|other| other.product == row.product).count(), 1);
            for part in row.names.iter().chain(row.files) {
                assert_eq!(*part, part.to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn what_it_calls_itself_counts_before_its_files_name() {
        let of = Product::recognise;
        assert_eq!(of(Some("VMware Tools"), "setup64.exe"), Some(Product::VmwareTools));
        assert_eq!(of(Some("Some Printer"), "VMware-tools-12.exe"), None);
        assert_eq!(of(None, "VMware-tools-12.3.5-x64.exe"), Some(Product::VmwareTools));
        assert_eq!(of(None, "setup64.exe"), None, "anybody's file is called so");
        assert_eq!(of(Some("Virtio-win-guest-tools"), "a.exe"), Some(Product::VirtioWinGuestTools));
        assert_eq!(of(Some("XCP-ng Windows Management Agent"), "a.msi"), Some(Product::XenGuestTools));
    }
}
