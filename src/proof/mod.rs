//! Proof that a machine boots: it runs on the target's virtual hardware, from throw-away overlays, without a route out,
//! and what it shows is kept as evidence.
//!
//! - [`hardware`]: the target's devices as QEMU's arguments.
//! - [`probe`]: what is put into the throw-away overlay so that the guest itself tells how far it came.
//! - [`trial`]: one boot, from power-on to the verdict.
//! - [`watch`]: what the console and the probe say, and what follows from it.
//!
//! Deliberately absent: judging an application inside the guest. "Booted" means: login prompt or multi-user target.

pub mod hardware;
pub mod probe;
pub mod trial;
pub mod watch;

use serde::Serialize;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The multi-user target (or a login prompt) was reached.
    Booted,
    /// It stopped on the way, for a reason that can be seen.
    Stopped,
    /// Nothing of both in the time given.
    TimedOut,
}

/// The evidence.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Proof {
    /// Version of this document.
    pub version: u32,
    /// The machine's name.
    pub machine: String,
    /// Whose virtual hardware: `kvm`.
    pub target: String,
    /// The devices that were asked for, where they are not the target's own: `pvscsi,vmxnet3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// What shows it, in a line.
    pub because: String,
    /// What ended the trial before this one, where the emulation could have been to blame, and it was repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
    /// From power-on to the login prompt on the serial console.
    pub seconds_to_login: Option<f64>,
    /// From power-on to the multi-user target.
    pub seconds_to_multi_user: Option<f64>,
    /// From power-on to the end of the trial.
    pub seconds: f64,
    /// `kvm` or `tcg` (emulated, some ten times slower).
    pub accelerator: String,
    /// The devices it ran on.
    pub devices: Vec<String>,
    /// What the guest said of itself from inside.
    pub guest: Option<watch::Inside>,
    /// Guest paths that were changed in the throw-away overlay only, so that it speaks.
    pub instrumented: Vec<String>,
    /// Evidence files in the same folder.
    pub files: Vec<String>,
    /// Seconds since 1970 when it ended.
    pub ended_unix_seconds: u64,
}
