//! What the service's API takes and answers, besides the state of things ([`protection`](super::protection)). The same documents are
//! what the verbs of the command line print that ask it.

use super::VERSION;
use super::protection::{Alarm, MachineStatus, Point};
use crate::machine::Machine;
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::rights::Rights;
use crate::receive::send::Sent;
use crate::vault::journal::Consistency;
use landfall_image::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A machine that is to be protected, or what is to change about one that is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    /// Its disks. One that it does not have yet is added, one with another size is resized; none is taken away.
    #[serde(default)]
    pub disks: Vec<WantedDisk>,
    /// Its definition, where it is to be kept or replaced: the machine as landfall inspect --json shows it, `file` of each of its disks
    /// being the disk's name here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Machine>,
    /// Its UEFI variables, in Base64, where they are to be kept or replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<String>,
}

/// A disk that is to be protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedDisk {
    /// Its name: `MACHINE/NAME` is its export.
    pub name: Name,
    /// Bytes; a multiple of the sector.
    pub size: u64,
    /// Bytes of a logical sector: 512 or 4096.
    #[serde(default = "usual_sector")]
    pub sector: u32,
}

fn usual_sector() -> u32 {
    512
}

/// A machine, and where its disks are sent to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MachineShown {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// How well it is protected.
    pub machine: MachineStatus,
    /// Where each of its disks is to be sent.
    pub receive: Vec<Inlet>,
    /// Its definition, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Machine>,
    /// True where its UEFI variables are kept.
    pub variables: bool,
}

/// Where a disk is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inlet {
    /// The disk's name.
    pub disk: String,
    /// The export's name.
    pub export: String,
    /// The NBD socket for programs on the service's machine.
    pub socket: String,
    /// The export as NBD URIs: first through the socket, then through the network.
    pub uris: Vec<String>,
}

/// Sets a point.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SetPoint {
    /// `application` where the applications have written down what they had in memory.
    pub consistency: Consistency,
    /// A name, by which the point is kept until it is taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// Names a point.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTag {
    /// The name, by which the point is kept from then on; without, the point's name is taken back.
    #[serde(default)]
    pub tag: Option<String>,
}

/// What a machine is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WantedRole {
    /// Its source writes to it.
    Replica,
    /// It runs somewhere else.
    Promoted,
}

/// Changes what a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRole {
    /// What.
    pub role: WantedRole,
    /// From which point it was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// What it became: the folder of the recovered machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// Holds a point, or lets it go.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetHold {
    /// Who needs it: the folder of a recovered machine.
    pub holder: String,
    /// False to let it go.
    #[serde(default = "yes")]
    pub held: bool,
}

fn yes() -> bool {
    true
}

/// A point that is held: it is not given up, whoever reads it, until all who hold it let it go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// Whose point.
    pub machine: String,
    /// Its number.
    pub point: u64,
    /// Who needs it.
    pub holder: String,
}

/// What became of a hold.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HoldSet {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The hold.
    pub hold: Hold,
    /// True where it holds from now on; false where it was let go.
    pub held: bool,
}

/// All that is held.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Holds {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// By machine and point.
    pub holds: Vec<Hold>,
}

/// A point that was set or named.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PointSet {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Whose.
    pub machine: String,
    /// The point.
    pub point: Point,
    /// The name that it had before, where that was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
}

/// A point, with what a recovery needs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PointShown {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Whose.
    pub machine: String,
    /// The machine's own number, which no other vault gives to one.
    pub id: Uuid,
    /// The point.
    pub point: Point,
    /// The point of another landfall that it is, where it was sent by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
    /// The disks that the machine had then.
    pub disks: Vec<PointDisk>,
    /// The machine's definition then, where it was known; `file` of each of its disks is the disk's name here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Machine>,
    /// True where its UEFI variables are kept with it: …/variables has them.
    pub variables: bool,
}

/// A disk as it was at a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PointDisk {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: Bytes,
    /// Bytes of a logical sector.
    pub sector: u32,
    /// Where it is read, as an NBD URI, on the service's machine; empty where none works on the vault.
    pub uri: String,
    /// Where it is read from other machines, with a certificate that allows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    /// The RBD snapshot that it is, where a stream has brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// It is fed by deltas, and something of it came without a digest that could be compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
}

/// How a verification is to be done.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// Bytes read per second, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u64>,
}

/// The verification of a point: under way, or what came of the last one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Whose point.
    pub machine: String,
    /// Its number.
    pub point: u64,
    /// How far it is.
    pub state: VerificationState,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// In a sentence.
    pub says: String,
    /// What has been read, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<VerificationProgress>,
    /// When the reading began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Moment>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Moment>,
    /// When the digests were made that these were compared with; none where these are the first of the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<Moment>,
    /// The disks that were read.
    pub disks: Vec<VerifiedDisk>,
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerificationState {
    /// Others come first.
    Waiting,
    /// The point is being read.
    Running,
    /// It has ended.
    Done,
}

/// What a verification says. "Could not look" is not "looked, and wrong".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All of it was read, every checksum is right, and the digests are those of before.
    Matched,
    /// Something is not what was written.
    Differed,
    /// It was not read as a whole, so nobody knows.
    CouldNotRun,
}

impl Verdict {
    const ALL: [Verdict; 3] = [Verdict::Matched, Verdict::Differed, Verdict::CouldNotRun];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Matched => "matched",
            Verdict::Differed => "differed",
            Verdict::CouldNotRun => "could-not-run",
        }
    }

    /// The verdict of that name.
    pub fn parse(name: &str) -> Option<Verdict> {
        Verdict::ALL.into_iter().find(|verdict| verdict.name() == name)
    }
}

/// How much was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerificationProgress {
    /// The disk that is being read.
    pub disk: String,
    /// Its place among the disks, from 1.
    pub number: usize,
    /// How many there are.
    pub disks: usize,
    /// Bytes of it that were read.
    pub read: Bytes,
    /// Bytes of it that are to be read: what is not known to be zeros.
    pub total: Bytes,
}

/// A disk of a point that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifiedDisk {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: Bytes,
    /// What came of it.
    pub verdict: Verdict,
    /// BLAKE3 over what the guest reads (see landfall disk info --digest), where all of it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The digest of before, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where it is damaged: the first places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Damage>,
    /// How many more damaged places there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_damage: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A part of a disk that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Damage {
    /// Where on the disk it begins, in bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// What is wrong there, and in which file of the vault.
    pub says: String,
}

/// The last verification of a point, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// When it ended.
    pub at: Moment,
    /// What came of it.
    pub verdict: Verdict,
}

/// What is wrong now, and what was.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Alarms {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// What is wrong now, the worst first.
    pub alarms: Vec<Alarm>,
    /// What began and ended, the newest first, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<Event>>,
}

/// What began and ended.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The newest first.
    pub events: Vec<Event>,
}

/// An alarm that began or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When.
    pub at: Moment,
    /// Which of the two.
    pub change: Change,
    /// The alarm.
    pub alarm: Alarm,
}

/// What became of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It began.
    Began,
    /// It ended.
    Ended,
}

/// What the webhook of alarms gets by POST.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The machine that the service runs on, by the name that it gives itself.
    pub service: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a token allows. Each allows what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// To look.
    Read,
    /// To do everything but hand out tokens.
    Operate,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Read, Role::Operate, Role::Admin];

    /// As it is written: `read`, `operate`, `admin`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A token, without its secret, which nobody keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Whom it was given to.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made.
    pub made: Moment,
}

/// The tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// By name.
    pub tokens: Vec<Token>,
}

/// A token that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeToken {
    /// Whom it is given to: 1 to 100 bytes.
    pub name: String,
    /// What it allows.
    pub role: Role,
}

/// A token that was made. Its secret is shown this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenMade {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The token.
    pub token: Token,
    /// What whoever has it sends: `Authorization: Bearer lf_…`.
    pub secret: String,
}

/// A certificate that the service's own authority has signed, without its key, which nobody keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// Whose it is.
    pub name: String,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// What it allows.
    pub rights: Rights,
    /// When it was made.
    pub made: Moment,
    /// When it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<Moment>,
}

/// Certificates that were handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Certificates {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// By name.
    pub certificates: Vec<Certificate>,
}

/// A certificate that is to be handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeCertificate {
    /// Whose it will be: 1 to 64 letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// What it allows.
    pub rights: Rights,
}

/// A certificate that was handed out. Its key is shown this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateMade {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The certificate.
    pub certificate: Certificate,
    /// The certificate itself, in PEM.
    pub pem: String,
    /// Its key, in PEM.
    pub key: String,
    /// The authority's certificate, in PEM.
    pub ca: String,
}

/// A certificate that was handed out, where its files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateWritten {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The certificate.
    pub certificate: Certificate,
    /// The folder with `ca-cert.pem`, `client-cert.pem` and `client-key.pem`.
    pub folder: String,
}

/// The authority of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateTrusted {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// SHA-256 of its certificate, in pairs of hexadecimal digits.
    pub fingerprint: String,
    /// The file that it was written to; absent where nobody has vouched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// That the service works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The program's version.
    pub landfall: String,
}

impl Default for Health {
    fn default() -> Health {
        Health { version: VERSION, landfall: env!("CARGO_PKG_VERSION").to_owned() }
    }
}
