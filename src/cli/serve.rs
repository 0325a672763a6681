//! `landfall serve`

use super::args::Serve;
use super::{Surroundings, text};
use crate::ops::serve;
use crate::report::serving::{Rules, ServeChecked};
use landfall_image::Result;
use std::fmt::Write;

/// Works until it is told to end.
pub fn run(args: &Serve, as_json: bool, surroundings: &Surroundings) -> Result<u8> {
    let config = serve::config(args.config.as_deref())?;
    if args.check {
        let checked = serve::check(&config, &surroundings.sandbox)?;
        match as_json {
            true => text::print_json(&checked)?,
            false => text::print(&in_words(&checked))?,
        }
        return Ok(u8::from(!checked.lacks.is_empty()));
    }
    serve::serve(config, surroundings.notify.clone(), &surroundings.cancel)?;
    Ok(0)
}

fn rules_text(rules: &Rules) -> String {
    let mut out = format!(
        "a point every {}, RPO {} ({} by deltas), kept {}",
        rules.checkpoint, rules.rpo, rules.delta_rpo, rules.retention
    );
    if let Some(every) = &rules.prove {
        let _ = write!(out, "; booted in isolation every {every}");
    }
    if !rules.prepare.is_empty() {
        let targets: Vec<&str> = rules.prepare.iter().map(String::as_str).collect();
        let _ = write!(out, "; patched ahead for {}", targets.join(", "));
    }
    out
}

fn in_words(checked: &ServeChecked) -> String {
    let mut out = String::new();
    let list = |all: &[String]| all.join(", ");
    let _ = writeln!(out, "vault       {}", checked.vault);
    let _ = writeln!(out, "NBD         {}", list(&checked.receive));
    let _ = writeln!(out, "points      {}", checked.points);
    let _ = writeln!(out, "API         {}", list(&checked.api));
    for folder in &checked.folders {
        let sealed =
            if folder.manifest { "drops with a manifest only" } else { "drops by their name or a manifest" };
        let after = if folder.keep { "they stay in their place" } else { "they go to .done" };
        let _ = writeln!(out, "folder      {} every {}: {sealed}; {after}", folder.path, folder.every);
    }
    for sends in &checked.sends {
        let limit = sends.limit.map(|limit| format!(", {limit} per second at most")).unwrap_or_default();
        let machines = sends.machines.join(", ");
        let _ = writeln!(
            out,
            "send        {machines} to {} every {}{limit}; an alarm after {}",
            sends.to, sends.every, sends.late
        );
    }
    if checked.require_digest {
        let _ = writeln!(out, "RBD         streams with a SHA-256 only");
    }
    for client in &checked.clients {
        let _ = writeln!(out, "client      {}: writes to {}", client.who, list(&client.machines));
    }
    if let Some(webhook) = &checked.webhook {
        let _ = writeln!(out, "alarms      are told to {webhook}");
    }
    let _ = writeln!(out, "machines    {}", rules_text(&checked.protect));
    for (name, rules) in &checked.machines {
        let _ = writeln!(out, "  {name}: {}", rules_text(rules));
    }
    for (name, members) in &checked.groups {
        let _ = writeln!(out, "group {name}: {}, cut at one moment", list(members));
    }
    for (what, found) in [("missing", &checked.lacks), ("doubt", &checked.doubts)] {
        for one in found {
            let _ = writeln!(out, "{what}: {}\n    fix: {}", one.says, one.fix);
        }
    }
    out.push_str(match (checked.lacks.is_empty(), checked.doubts.is_empty()) {
        (true, true) => "Nothing is wrong with the file.\n",
        (true, false) => "The file can be used; see whether it is meant so.\n",
        (false, _) => "The file can be read, and not all that it needs is there.\n",
    });
    out
}
