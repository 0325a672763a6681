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
/// What stands in the way, a file for each step.
pub const PROBLEMS: &str = "/run/landfall-appliance/problems";
/// The service's file. `/etc/landfall/landfall.toml` leads here.
pub const SERVICE_FILE: &str = "/run/landfall-appliance/landfall.toml";
/// What the administrator adds to that file.
pub const SERVICE_MORE: &str = "/var/lib/landfall-appliance/landfall.toml";
/// Where the partition of the loaders is mounted while it is written to.
pub const ESP: &str = "/run/landfall-appliance/esp";
/// The service's user and group, as in the image's `/etc/passwd`.
pub const SERVICE_USER: u32 = 993;
/// The console's user, as there; it is in the service's group.
pub const CONSOLE_USER: u32 = 992;
/// The administrator's first token, as long as nobody has said that it was noted. Root's, and readable for the console's group.
pub const FIRST_TOKEN: &str = "/run/landfall-appliance/first-token";
/// There once the first token was noted: no other is made.
pub const WELCOMED: &str = "/var/lib/landfall-appliance/welcomed";
/// The authority's certificate.
pub const AUTHORITY_CERTIFICATE: &str = "/var/lib/landfall-appliance/authority/ca.pem";
