//! Where things are on the appliance. One place for every path.

/// The state partition.
pub const STATE: &str = "/var";
/// What is kept: settings, certificates, which vault is ours. Root's, but for what is named below.
pub const KEPT: &str = "/var/lib/landfall-appliance";
/// The authority of receivers and their clients; the service's user signs with it.
pub const AUTHORITY: &str = "/var/lib/landfall-appliance/authority";
/// Which vault is ours.
pub const VAULT_ID: &str = "/var/lib/landfall-appliance/vault.json";
/// Where the vault's disk is mounted: the service's home.
pub const VAULT: &str = "/var/lib/landfall";
/// What is made at every start.
pub const RUN: &str = "/run/landfall-appliance";
/// The partition whose state could not be used at this start.
pub const DAMAGED_STATE: &str = "/run/landfall-appliance/damaged-state";
/// What stands in the way, a file for each step.
pub const PROBLEMS: &str = "/run/landfall-appliance/problems.d";
/// The service's file. `/etc/landfall/landfall.toml` leads here.
pub const SERVICE_FILE: &str = "/run/landfall-appliance/landfall.toml";
/// The socket of whoever boots and patches points for the service.
pub const TRIALS: &str = "/run/landfall-trial/trial.sock";
/// What the administrator adds to that file.
pub const SERVICE_MORE: &str = "/var/lib/landfall-appliance/landfall.toml";
/// The service's file as it last could be used.
pub const SERVICE_LAST: &str = "/var/lib/landfall-appliance/service-file.last";
/// Where the partition of the loaders is mounted while the loader's word is read or written.
pub const ESP: &str = "/run/landfall-appliance/esp";
/// Where a medium with settings is mounted while it is read.
pub const MEDIUM: &str = "/run/landfall-appliance/medium";
/// Which disk the administrator chose for the vault, until it is one.
pub const CLAIM: &str = "/var/lib/landfall-appliance/claim.json";
/// An update that was sent, until it is installed.
pub const UPDATE: &str = "/var/lib/landfall-appliance/update";
/// That this system has come up, and is the one that starts from now on.
pub const CONFIRMED: &str = "/run/landfall-appliance/confirmed";
/// What was installed since the start, and is tried at the next one.
pub const NEXT: &str = "/run/landfall-appliance/next.json";
/// The administrator's token, until it is noted: the same at every start, for somebody may use it already.
pub const FIRST_TOKEN: &str = "/var/lib/landfall-appliance/first-token";
/// The vault whose service it is for, as [`VAULT_ID`] has it.
pub const TOKEN_VAULT: &str = "/var/lib/landfall-appliance/first-token.vault";
/// That it was.
pub const WELCOMED: &str = "/var/lib/landfall-appliance/welcomed";
/// The user of the console.
pub const CONSOLE_USER: u32 = 992;
/// The service's user and group, as in the image's `/etc/passwd`.
pub const SERVICE_USER: u32 = 993;
/// The authority's certificate.
pub const AUTHORITY_CERTIFICATE: &str = "/var/lib/landfall-appliance/authority/ca.pem";
