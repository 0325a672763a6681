//! How everything is, as Prometheus reads it (text format 0.0.4).

use super::call::{Call, Outcome};
use crate::report::protection::{Gravity, Protection};
use std::fmt::{Display, Write};

/// Of the page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that grows.
struct Page(String);

impl Page {
    /// Begins a metric; `kind` is `gauge` or `counter`.
    fn metric(&mut self, name: &str, kind: &str, says: &str) {
        let _ = writeln!(self.0, "# HELP {name} {says}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    fn alone(&mut self, name: &str, kind: &str, says: &str, value: impl Display) {
        self.metric(name, kind, says);
        self.value(name, &[], value);
    }
}

pub(super) fn page(call: &Call) -> Outcome<Vec<u8>> {
    let service = &call.service;
    let status = service.status();
    let mut page = Page(String::new());
    page.metric("landfall_build_info", "gauge", "The program's version.");
    page.value("landfall_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.alone("landfall_vault_size_bytes", "gauge", "The vault's file system.", status.vault.size.0);
    page.alone(
        "landfall_vault_free_bytes",
        "gauge",
        "Of it, what can still be written.",
        status.vault.free.0,
    );

    page.metric("landfall_machines", "gauge", "Protected machines, by how well they are.");
    for (label, protection) in [
        ("protected", Protection::Protected),
        ("at-risk", Protection::AtRisk),
        ("unprotected", Protection::Unprotected),
    ] {
        let count = status.machines.iter().filter(|machine| machine.protection == protection).count();
        page.value("landfall_machines", &[("protection", label)], count);
    }
    page.metric("landfall_alarms", "gauge", "What is wrong now, by how bad it is.");
    for (label, gravity) in [("critical", Gravity::Critical), ("warning", Gravity::Warning)] {
        let count = status.alarms.iter().filter(|alarm| alarm.gravity == gravity).count();
        page.value("landfall_alarms", &[("gravity", label)], count);
    }
    page.metric("landfall_alarm", "gauge", "One for each alarm that is on.");
    for alarm in &status.alarms {
        let labels = [("id", alarm.id.as_str()), ("machine", alarm.machine.as_deref().unwrap_or(""))];
        page.value("landfall_alarm", &labels, 1);
    }

    let machines = || status.machines.iter().map(|machine| (machine, [("machine", machine.name.as_str())]));
    page.metric("landfall_machine_protection", "gauge", "0 protected, 1 at risk, 2 unprotected.");
    for (machine, labels) in machines() {
        page.value("landfall_machine_protection", &labels, machine.protection as u8);
    }
    page.metric("landfall_rpo_target_seconds", "gauge", "How old the newest state may be.");
    for (machine, labels) in machines() {
        page.value("landfall_rpo_target_seconds", &labels, machine.rpo.target);
    }
    page.metric("landfall_rpo_seconds", "gauge", "How old the newest state that can be recovered is.");
    for (machine, labels) in machines() {
        if let Some(actual) = machine.rpo.actual {
            page.value("landfall_rpo_seconds", &labels, actual);
        }
    }
    page.metric("landfall_rpo_p95_seconds", "gauge", "It was no older for 95 % of the last day.");
    for (machine, labels) in machines() {
        if let Some(p95) = machine.rpo.p95 {
            page.value("landfall_rpo_p95_seconds", &labels, p95);
        }
    }
    page.metric("landfall_points", "gauge", "Recovery points.");
    for (machine, labels) in machines() {
        page.value("landfall_points", &labels, machine.points);
    }
    page.metric("landfall_newest_point_timestamp_seconds", "gauge", "When the newest was set.");
    for (machine, labels) in machines() {
        if let Some(newest) = machine.newest {
            let (seconds, ms) = (newest.0 / 1000, newest.0 % 1000);
            page.value("landfall_newest_point_timestamp_seconds", &labels, format_args!("{seconds}.{ms:03}"));
        }
    }
    page.metric("landfall_last_boot_timestamp_seconds", "gauge", "When a point was last seen to boot.");
    for (machine, labels) in machines() {
        if let Some(booted) = machine.proof.as_ref().and_then(|proof| proof.booted.as_ref()) {
            page.value("landfall_last_boot_timestamp_seconds", &labels, booted.evidence.at.0 / 1000);
        }
    }
    page.metric("landfall_point_failures_total", "counter", "How often no point could be set.");
    for (name, watched) in service.watched() {
        page.value("landfall_point_failures_total", &[("machine", name.as_str())], watched.cut_failures());
    }
    let disks = || {
        status.machines.iter().flat_map(|machine| {
            machine
                .disks
                .iter()
                .map(|disk| (disk, [("machine", machine.name.as_str()), ("disk", disk.name.as_str())]))
        })
    };
    page.metric("landfall_disk_connections", "gauge", "Connections that send a disk.");
    for (disk, labels) in disks() {
        page.value("landfall_disk_connections", &labels, disk.connections);
    }
    page.metric(
        "landfall_disk_copying",
        "gauge",
        "1 while a disk is no state of its machine: it is being copied.",
    );
    for (disk, labels) in disks() {
        page.value("landfall_disk_copying", &labels, u8::from(disk.copying.is_some()));
    }
    received(&mut page, call);
    Ok(page.0.into_bytes())
}

/// What clients sent, as the receiver counts it.
fn received(page: &mut Page, call: &Call) {
    let Some(stats) = call.service.monitor.get().map(crate::receive::nbd::Monitor::read) else { return };
    page.alone(
        "landfall_nbd_connections",
        "gauge",
        "Connections, those that greet included.",
        stats.connections,
    );
    for (name, says, value) in [
        ("landfall_nbd_accepted_total", "Connections taken.", stats.accepted),
        ("landfall_nbd_turned_away_total", "Hung up on at once: a limit was reached.", stats.turned_away),
        (
            "landfall_nbd_not_let_in_total",
            "No certificate, a wrong one, no export, or nonsense.",
            stats.not_let_in,
        ),
        ("landfall_nbd_broken_off_total", "Ended without a goodbye.", stats.broken_off),
        ("landfall_nbd_requests_total", "Requests answered.", stats.total.requests),
        ("landfall_nbd_failed_requests_total", "Of these, with an error.", stats.total.failed),
    ] {
        page.alone(name, "counter", says, value);
    }
    type Count = fn(&crate::receive::nbd::Tally) -> u64;
    let counts: [(&str, &str, Count); 4] = [
        ("landfall_disk_written_bytes_total", "Bytes written to a disk.", |tally| tally.written_bytes),
        ("landfall_disk_writes_total", "Writes to it.", |tally| tally.writes),
        ("landfall_disk_zeroed_bytes_total", "Bytes of it that were made zeros.", |tally| tally.zeroed_bytes),
        ("landfall_disk_flushes_total", "Flushes of it.", |tally| tally.flushes),
    ];
    for (name, says, count) in counts {
        page.metric(name, "counter", says);
        for export in &stats.exports {
            let labels = [("machine", export.name.machine().as_str()), ("disk", export.name.disk().as_str())];
            page.value(name, &labels, count(&export.tally));
        }
    }
}
