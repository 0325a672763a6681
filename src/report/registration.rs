//! What came of a registration with a hypervisor, as a document.

#[cfg(doc)]
use super::VERSION;
use super::failure::Failed;
use landfall_boot::check::Finding;
use schemars::JsonSchema;
use serde::Serialize;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "RegistrationOutcome")]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was looked at only, and could be done.
    Planned,
    /// Findings stand in the way; nothing was changed at the target.
    Blocked,
    /// The target has the machine.
    Registered,
}

/// The document of a registration.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Registration {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// What came of it.
    pub outcome: Outcome,
    /// The machine's name.
    pub machine: String,
    /// The hypervisor's address.
    pub at: String,
    /// What is (or was) done there, a line each.
    pub steps: Vec<String>,
    /// What stands in the way, differs or is good to know.
    pub findings: Vec<Finding>,
    /// The machine's id at the target, once it is registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// It was started.
    pub started: bool,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What came of a registration that follows a conversion.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Afterwards {
    /// It was done, or findings stand in the way.
    Told(Registration),
    /// It failed; the hint says what is left at the hypervisor.
    Failed(Failed),
}
