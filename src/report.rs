//! The report of a run: one JSON document, the same that `--json` prints and `report.json` keeps.

/// Version of every JSON document that landfall prints. Grows when a field changes its meaning or goes away; new
/// fields do not change it.
pub const VERSION: u32 = 1;
