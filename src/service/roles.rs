//! Machines that were promoted: they run somewhere else, and their source is to write nothing here.

use super::alarms::Wrong;
use super::watched::Watched;
use super::{Service, now};
use crate::moment::Moment;
use crate::name::Name;
use crate::report::api::{SetRole, WantedRole};
use crate::report::protection::{Gravity, RoleStatus};
use crate::vault::role::Promotion;
use landfall_image::{Error, Result};

/// So long it is told that a source has come back, after its last attempt.
const BACK: u64 = 3_600_000;

impl Service {
    /// Changes what a machine is.
    ///
    /// # Errors
    /// Refused where there is no such machine, or nothing says what it was promoted to; as the vault's.
    pub fn set_role(&self, name: &Name, wanted: &SetRole) -> Result<RoleStatus> {
        let watched = self.machine(name)?;
        let promoted = match (wanted.role, wanted.point, &wanted.holder) {
            (WantedRole::Replica, ..) => None,
            (WantedRole::Promoted, Some(point), Some(holder)) => {
                Some(Promotion { at: now(), point, holder: holder.clone() })
            }
            (WantedRole::Promoted, ..) => {
                return Err(Error::refused("nothing says from which point, and what it became")
                    .hint("give point and holder"));
            }
        };
        let role = watched.machine().roles().change(promoted)?;
        tracing::info!(machine = %name, epoch = role.epoch, promoted = role.promoted.is_some(), "a machine has another role");
        Ok(self.role_of(&watched))
    }

    /// What a machine is.
    pub(super) fn role_of(&self, watched: &Watched) -> RoleStatus {
        let role = watched.machine().roles().now();
        RoleStatus {
            epoch: role.epoch,
            promoted_at: role.promoted.as_ref().map(|it| Moment(it.at)),
            point: role.promoted.as_ref().map(|it| it.point),
            holder: role.promoted.map(|it| it.holder),
        }
    }

    /// The source of a machine that was promoted wants to write to it.
    pub(super) fn source_is_back(&self, name: &Name, peer: &str) {
        if let Ok(watched) = self.machine(name) {
            watched.came_back(peer, now());
        }
    }

    /// Two of a machine may run.
    pub(super) fn wrong_with_role(&self, name: &Name, watched: &Watched, at: Moment) -> Option<Wrong> {
        let role = watched.machine().roles().now();
        let promoted = role.promoted?;
        let (peer, last) = watched.is_back().filter(|(_, last)| at.0.saturating_sub(*last) < BACK)?;
        Some(Wrong {
            id: "source-is-back",
            gravity: Gravity::Critical,
            machine: Some(name.to_string()),
            says: format!(
                "{name} was promoted at {} from point {}, and {peer} wanted to write to it at {}: two of it may run. Nothing was taken.",
                Moment(promoted.at),
                promoted.point,
                Moment(last)
            ),
            remedy: format!(
                "Stop one of the two. Where the source is to be protected again: landfall protect {name} --resume; where it is not wanted any longer: landfall unprotect {name}."
            ),
        })
    }
}
