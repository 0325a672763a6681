//! What is wrong at this moment, each with what to do about it: what becomes alarms.

use super::alarms::Wrong;
use super::rounds::percent;
use super::watched::{Fed, Watched};
use super::{Service, rpo};
use crate::hypervisor::text::shell_word;
use crate::moment::Moment;
use crate::name::Name;
use crate::report::protection::{Gravity, Proven};
use crate::vault::retention::shown_duration;
use landfall_image::Bytes;
use std::time::Duration;

/// Who reads a point for longer keeps the vault from growing less, and may have been forgotten.
const READ_LONG: Duration = Duration::from_secs(24 * 3600);

/// What is wrong.
#[derive(Default)]
struct Found(Vec<Wrong>);

impl Found {
    fn put(&mut self, id: &'static str, gravity: Gravity, machine: Option<&str>, says: String, remedy: &str) {
        let (machine, remedy) = (machine.map(str::to_owned), remedy.to_owned());
        self.0.push(Wrong { id, gravity, machine, says, remedy });
    }
}

/// In days where it is that long, else in hours.
fn coarse(duration: Duration) -> String {
    let hours = duration.as_secs().div_ceil(3600);
    if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} h") }
}

impl Service {
    /// Everything that is wrong.
    pub(super) fn wrong(&self, at: Moment) -> Vec<Wrong> {
        let mut found = Found::default();
        self.wrong_with_site(&mut found);
        for (name, watched) in self.watched() {
            self.wrong_with_points(&name, &watched, &mut found);
            self.wrong_with_age(&name, &watched, at, &mut found);
            self.wrong_with_proofs(&name, &watched, at, &mut found);
            self.wrong_with_streams(&name, &watched, &mut found);
            found.0.extend(self.wrong_with_role(&name, &watched, at));
            found.0.extend(self.cut_off(&name));
            found.0.extend(self.waits_for_sender(&name));
        }
        found.0.extend(self.wrong_with_sends(at));
        self.deltas.wrong(&mut |wrong| found.0.push(wrong));
        self.wrong_with_folders(&mut |wrong| found.0.push(wrong));
        found.0
    }

    /// With the vault as a whole, and what is around it.
    fn wrong_with_site(&self, found: &mut Found) {
        for (name, why) in &self.unreadable {
            found.put(
                "machine-unreadable",
                Gravity::Critical,
                Some(name.as_str()),
                format!("{name} cannot be read: {why}."),
                "Bring its files back from a copy of the vault, or move its folder out of the vault and copy the machine anew.",
            );
        }
        if let Some(aside) = &self.catalog_lost {
            found.put(
                "catalog-lost",
                Gravity::Warning,
                None,
                format!(
                    "The catalog was damaged and is at {aside}: tokens, later names of points, evidence and which certificates were taken back are gone; points are not."
                ),
                "Hand out tokens again, and name the points again that must be kept.",
            );
        }
        let time = self.time();
        if !time.ahead.is_zero() {
            found.put(
                "clock-ahead",
                Gravity::Critical,
                None,
                format!(
                    "The clock is {} ahead of what it said last and of how long this machine has run since: it was set wrong, or the service was off. Points are given up as if it were {}.",
                    coarse(time.ahead),
                    Moment(time.believed)
                ),
                &format!(
                    "If the clock is wrong, set it right. If it is right there is nothing to do: it counts in {}.",
                    coarse(time.left)
                ),
            );
        }
        if let Some(why) = self.webhook.trouble() {
            found.put(
                "webhook-failed",
                Gravity::Warning,
                None,
                format!("Alarms cannot be sent to the webhook: {why}."),
                "Look at the program behind [alarm] webhook; what happened meanwhile is sent when it answers.",
            );
        }
        if let Some((free, size)) = self.room() {
            let percent = percent(free, size);
            let config = &self.config.upkeep;
            if self.vault.is_full() {
                found.put(
                    "vault-full",
                    Gravity::Critical,
                    None,
                    format!(
                        "The vault is full: {} of {} are free. What is written to machines is refused, and their mirrors end; points are thinned ({}), and those that are there stay.",
                        Bytes(free),
                        Bytes(size),
                        config.thin
                    ),
                    "Give its file system more room, take machines out (landfall unprotect), or let machines keep fewer points ([machine.NAME] retention); then start the replication again. Recovery works meanwhile.",
                );
            } else if self.is_scarce() {
                found.put(
                    "vault-scarce",
                    Gravity::Critical,
                    None,
                    format!(
                        "The vault has {percent} % free: points are thinned before their time ({}).",
                        config.thin
                    ),
                    "Give its file system more room, or let machines keep fewer points ([machine.NAME] retention). Recovery goes on as before.",
                );
            } else if percent < config.low {
                found.put(
                    "vault-filling",
                    Gravity::Warning,
                    None,
                    format!("The vault has {percent} % free."),
                    "Give its file system more room, or let machines keep fewer points ([machine.NAME] retention).",
                );
            }
        }
        if let Some(says) = self.incomplete_groups() {
            found.put(
                "group-incomplete",
                Gravity::Warning,
                None,
                says,
                "The others get their points without them: protect them, too (landfall protect), or write their names as they are protected ([group.NAME] machines).",
            );
        }
    }

    /// With the points of a machine that are there, or should be.
    #[expect(clippy::unused_self, reason = "beside its kind")]
    fn wrong_with_points(&self, name: &Name, watched: &Watched, found: &mut Found) {
        let machine = Some(name.as_str());
        let (cut, upkeep) = watched.failures();
        if let Some(why) = cut {
            found.put(
                "point-failed",
                Gravity::Critical,
                machine,
                format!("No point of {name} can be set: {why}."),
                "Look at the medium of the vault and at the log of the service. Earlier points are safe.",
            );
        }
        if let Some(why) = upkeep {
            found.put(
                "upkeep-failed",
                Gravity::Warning,
                machine,
                format!("Older points of {name} cannot be given up: {why}."),
                "Look at the medium of the vault; until then its journal grows.",
            );
        }
        let read = watched.machine().read_for().filter(|(_, span)| *span > READ_LONG);
        if let Some((point, span)) =
            read.filter(|(point, _)| !watched.machine().holds().points().contains(point))
        {
            found.put(
                "point-in-use",
                Gravity::Warning,
                machine,
                format!(
                    "Point {point} of {name} has been read for {}, and no older part of its journal can be given up.",
                    shown_duration(Duration::from_secs(span.as_secs() / 3600 * 3600))
                ),
                "An NBD client or an export that was forgotten: end it at its side, or start the service again.",
            );
        }
        if let Some(points) = numbered(name, &watched.differed()) {
            found.put(
                "point-differed",
                Gravity::Critical,
                machine,
                format!("{points} not what was written: its verification differed."),
                "Recover from another point, once it is verified (landfall points verify): earlier ones may be sound. Check the medium of the vault, and copy the machine's disks anew (sync=full). This goes on until the point is given up (landfall points delete) or matches.",
            );
        }
    }

    /// With how old the newest state is.
    fn wrong_with_age(&self, name: &Name, watched: &Watched, at: Moment, found: &mut Found) {
        let machine = Some(name.as_str());
        let rules = self.config.protect(name);
        // As they are typed: names have spaces, and dots.
        let (word, key) = (shell_word(name.as_str()), toml_key(name.as_str()));
        let (target, fed) = (self.target(name, watched), watched.fed());
        if let Some(age) = watched.age(at.0).filter(|age| *age > target && !is_promoted(watched)) {
            let remedy = match fed {
                Fed::Mirrored => format!(
                    "landfall status {word} says why: its stream has gone, a copy is under way, or the vault is too slow."
                ),
                Fed::Deltas { .. } => format!(
                    "The next delta is due: look at what makes and sends it. Where they come less often than that, say so: [machine.{key}] delta_rpo."
                ),
            };
            found.put(
                "rpo-missed",
                Gravity::Critical,
                machine,
                format!(
                    "The newest state of {name} that can be recovered is {} old; {} are allowed.",
                    rpo::age(age),
                    rpo::age(target)
                ),
                &remedy,
            );
        }
        let brought = watched.brought();
        let allowed = u64::try_from(rules.delta_rpo.as_millis()).unwrap_or(u64::MAX);
        let late: Vec<&str> = (brought.iter())
            .filter(|(_, (_, taken))| taken.is_some_and(|taken| at.0.saturating_sub(taken) > allowed))
            .map(|(disk, _)| disk.as_str())
            .collect();
        if fed == Fed::Mirrored
            && let Some(first) = late.first()
        {
            found.put(
                "delta-late",
                Gravity::Critical,
                machine,
                format!(
                    "{name}/{first} is fed by deltas, and its last is older than {}: later points hold it as it was then.",
                    shown_duration(rules.delta_rpo)
                ),
                &format!(
                    "Look at what makes and sends them. Where they come less often than that, say so: [machine.{key}] delta_rpo."
                ),
            );
        }
    }

    /// With what was seen of points, and what was made of them ahead.
    fn wrong_with_proofs(&self, name: &Name, watched: &Watched, at: Moment, found: &mut Found) {
        let machine = Some(name.as_str());
        let source = shell_word(&format!("point:{name}"));
        let [last, booted] = watched.proofs();
        if let Some(last) = last
            .as_ref()
            .filter(|last| !matches!(last.evidence.outcome, Proven::Booted | Proven::CouldNotRun))
        {
            found.put(
                "proof-failed",
                Gravity::Warning,
                machine,
                match last.evidence.outcome {
                    Proven::Blocked => format!(
                        "Point {} of {name} cannot be recovered on {}: {}",
                        last.point, last.evidence.target, last.evidence.says
                    ),
                    _ => format!(
                        "Point {} of {name} did not boot on {}: {}.",
                        last.point, last.evidence.target, last.evidence.says
                    ),
                },
                &format!(
                    "landfall inspect point:{name}@{} says what is known of its guest; the trial's console and picture are in {}.",
                    last.point, last.evidence.folder
                ),
            );
        }
        if let Some(every) = self.config.protect(name).prove
            && let Some(first) = watched.points().first()
        {
            let good = booted.as_ref().map_or(first.time, |booted| booted.evidence.at.0);
            if at.0.saturating_sub(good) > u64::try_from(every.as_millis() * 2).unwrap_or(u64::MAX) {
                let since = booted
                    .map_or_else(|| "ever".to_owned(), |booted| format!("since {}", booted.evidence.at));
                let why = last.map(|last| format!(" The last trial: {}.", last.evidence.says));
                found.put(
                    "proof-overdue",
                    Gravity::Warning,
                    machine,
                    format!("No point of {name} has booted {since}.{}", why.unwrap_or_default()),
                    &format!(
                        "Trials are made one after the other: let there be fewer ([protect] prove), or see why they do not work: landfall prove {source}"
                    ),
                );
            }
        }
        if let (_, Some(why)) = watched.ahead() {
            found.put(
                "prepare-failed",
                Gravity::Warning,
                machine,
                format!("No point of {name} can be patched ahead: {why}."),
                &format!("Its recovery would stop for the same reason: see landfall inspect {source}"),
            );
        }
    }

    /// With who sends the disks.
    fn wrong_with_streams(&self, name: &Name, watched: &Watched, found: &mut Found) {
        let (machine, brought) = (Some(name.as_str()), watched.brought());
        let word = shell_word(name.as_str());
        // One of a kind for each machine: sixty disks of a host that died are one thing that is wrong.
        let mut waiting = Vec::new();
        // Of one that was promoted nothing is wanted.
        let disks = if is_promoted(watched) { Vec::new() } else { self.disks(watched) };
        let is_half = self.is_half(watched);
        let mut gone = self.unsent(name, watched, &disks);
        for (disk, seen, copying) in disks {
            // Who sent it before does not matter any longer; and a delta is on its way.
            let matters = seen.connections == 0 && !brought.contains_key(&disk) && !is_half;
            if !matters || gone.iter().any(|(known, _)| *known == disk) {
                continue;
            }
            match seen.lost {
                Some(why) => gone.push((disk, why)),
                None => waiting.extend(copying.map(|why| (disk, why))),
            }
        }
        if let Some((_, why)) = gone.first() {
            found.put(
                "stream-gone",
                Gravity::Critical,
                machine,
                format!("Nobody sends {} any longer: {why}.", listed(name, &gone)),
                "The machine goes on without protection: start its replication again. A job with reconnect-delay that still waits comes back with the machine's next write.",
            );
        }
        if let Some((_, why)) = waiting.first() {
            found.put(
                "copy-needed",
                Gravity::Warning,
                machine,
                format!("{}: a copy is needed, and nobody sends it: {why}.", listed(name, &waiting)),
                &format!(
                    "Start its replication; where its copy is complete already, say so: landfall ready {word}"
                ),
            );
        }
    }

    /// Groups of which some machines are protected and others are not, in a line.
    fn incomplete_groups(&self) -> Option<String> {
        let known = self.watched();
        let mut lines = Vec::new();
        for (group, members) in &self.config.groups {
            // One that cannot be read is told of elsewhere.
            let missing: Vec<&str> = members
                .iter()
                .filter(|name| !known.contains_key(*name) && !self.unreadable.contains_key(*name))
                .map(Name::as_str)
                .collect();
            if !missing.is_empty() && members.iter().any(|name| known.contains_key(name)) {
                lines.push(format!(
                    "The group {group} has machines that are not protected: {}.",
                    missing.join(", ")
                ));
            }
        }
        (!lines.is_empty()).then(|| lines.join(" "))
    }
}

fn is_promoted(watched: &Watched) -> bool {
    watched.machine().roles().now().promoted.is_some()
}

/// Disks of a machine in a line, the first of many.
fn listed(machine: &Name, disks: &[(String, String)]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = disks.iter().take(SHOWN).map(|(disk, _)| format!("{machine}/{disk}")).collect();
    let more = disks.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// Points of a machine as the subject of a sentence, the first of many; `None` where there are none.
fn numbered(machine: &Name, points: &[u64]) -> Option<String> {
    const SHOWN: usize = 8;
    let (last, others) = points.split_last()?;
    if others.is_empty() {
        return Some(format!("Point {last} of {machine} is"));
    }
    let shown: Vec<String> = others.iter().take(SHOWN).map(u64::to_string).collect();
    let more = match points.len() - shown.len() {
        1 => last.to_string(),
        more => format!("{more} more"),
    };
    Some(format!("Points {} and {more} of {machine} are", shown.join(", ")))
}

/// A machine's name as a key of the service's file.
fn toml_key(name: &str) -> String {
    match name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        true => name.to_owned(),
        // Names have neither quotes nor backslashes.
        false => format!("\"{name}\""),
    }
}
