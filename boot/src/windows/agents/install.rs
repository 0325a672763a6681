//! How an agent's installer is run without anybody at the screen, once the guest runs at the target.
//!
//! Sources: msiexec's command line (Microsoft), and each vendor's manual for its own setup program.

use crate::{Error, Result};

/// The command line that installs an agent: `installer` is its Windows path in the guest. It never restarts by itself, and
/// ends with 0, or 3010 where a restart is wanted.
///
/// # Errors
/// Where the path could be read as more than a path, or nobody knows how that agent's installer is told to be silent.
pub fn install_command(agent: &str, installer: &str) -> Result<String> {
    if installer.is_empty()
        || installer.contains(['"', '%', '<', '>', '|', '^', '&', '!'])
        || installer.contains(char::is_control)
    {
        return Err(Error::refused(format!("{installer:?} is no path of an installer"))
            .hint("give the file a name of letters, digits and spaces"));
    }
    let lower = installer.to_ascii_lowercase();
    if lower.ends_with(".msi") {
        return Ok(format!(
            "msiexec.exe /i \"{installer}\" /qn /norestart REBOOT=ReallySuppress /l*v \"{installer}.log\""
        ));
    }
    let arguments = match agent {
        _ if !lower.ends_with(".exe") => None,
        "vmware-tools" => Some("/S /v\"/qn REBOOT=ReallySuppress\"".to_owned()),
        "qemu-guest-agent" | "virtio-services" | "spice-agent" => {
            Some(format!("/install /quiet /norestart /log \"{installer}.log\""))
        }
        "nutanix-guest-tools" => Some("/quiet ACCEPTEULA=yes /norestart".to_owned()),
        "virtualbox-guest-additions" => Some("/S".to_owned()),
        _ => None,
    };
    let arguments = arguments.ok_or_else(|| {
        Error::unsupported(format!("{installer} of {agent} cannot be run without somebody at the screen"))
            .hint("give the agent's .msi file")
    })?;
    Ok(format!("\"{installer}\" {arguments}"))
}
