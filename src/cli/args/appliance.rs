//! The grammar of `landfall appliance`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `landfall appliance …`
#[derive(Debug, Subcommand)]
pub enum ApplianceVerb {
    /// Build the appliance's image, in as many forms as are wanted: .ova, .vhdx, .qcow2, .vmdk, .raw, .vhd, .iso; or a signed .update
    ///
    /// The image is made from Debian's packages and this program, without root. The same packages give the same bytes. Beside each
    /// image lie its bill of materials (SPDX), the definitions of its hypervisors, and a README.txt with the commands. A disc (.iso)
    /// starts from drives and from USB sticks; a .vhd is one that Azure takes.
    Build(ApplianceBuild),
    /// Make a key that updates are signed with: FILE, and FILE.pub for the appliances that trust it
    Key {
        /// The new key's file; keep it where the images are built, and nowhere else
        file: PathBuf,
    },
    /// List the packages that the appliance is made of, with their digests
    Packages,
    /// Fetch the running appliance's support bundle, a .tar.zst: state, settings and logs, without secrets
    ///
    /// Runs on the appliance, as root. From elsewhere: ssh root@ADDRESS landfall appliance support > bundle.tar.zst
    Support {
        /// Write it to this new file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Install a signed update into the running appliance's other slot; it is what starts next
    ///
    /// Runs on the appliance, as root. From elsewhere: ssh root@ADDRESS landfall appliance update - < landfall.update
    ///
    /// The system that runs stays as it is, and starts again where the new one does not come up. Vault and settings are not touched.
    Update {
        /// The update; - for standard input
        file: PathBuf,
        /// Restart at once
        #[arg(long)]
        restart: bool,
    },
    /// A step of the running appliance's start
    #[command(hide = true)]
    Start {
        /// Which
        step: StartStep,
    },
    /// The running appliance's privileged helper; its socket is standard input
    #[command(hide = true)]
    Helper {
        /// Answer this user, besides root
        #[arg(long)]
        user: Vec<String>,
    },
    /// Boots or patches one recovery point for the service, which asks for it over standard input
    #[command(hide = true)]
    Trial,
    /// The running appliance's console
    #[command(hide = true)]
    Console,
}

/// `landfall appliance build`
#[derive(Debug, Args)]
pub struct ApplianceBuild {
    /// Write this image; its ending says which form it has. May be given several times
    #[arg(short, long = "output", required = true, value_name = "FILE")]
    pub outputs: Vec<PathBuf>,
    /// Keep the packages in this folder, and use those that are there [default: below the cache folder]
    #[arg(long, value_name = "FOLDER")]
    pub packages: Option<PathBuf>,
    /// Fetch packages from this mirror, which has debian/ and debian-security/ below it; may be given several times
    /// [default: Debian's own]
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,
    /// Fetch nothing: use the packages in the folder
    #[arg(long, conflicts_with = "mirror")]
    pub offline: bool,
    /// Take this list of packages instead of the program's own
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,
    /// Let the appliance take updates that are signed with the key of this public one
    #[arg(long, value_name = "FILE")]
    pub update_key: Option<PathBuf>,
    /// Compress the root with this level of zstd, 1 to 22: 3 for a quick try
    #[arg(long, value_name = "N", default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
    /// Sign an update (.update) with this key
    #[arg(long, value_name = "FILE")]
    pub sign: Option<PathBuf>,
    /// Put this program into the appliance instead of the one that runs
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Steps of the appliance's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StartStep {
    /// The state partition.
    State,
    /// Settings that came with the machine.
    Media,
    /// Host name, network, time, keys.
    Settings,
    /// The resolver's file.
    Resolv,
    /// The administrator's token.
    Welcome,
    /// An update that was sent.
    Update,
    /// A data disk that has become larger.
    Grow,
    /// The power button.
    Power,
    /// The data disk, certificates and the service's file.
    Data,
    /// Addresses that have changed.
    Addresses,
    /// The system has come up.
    Confirm,
}
