//! `landfall serve`

use super::args::Serve;
use super::{Surroundings, text};
use crate::ops::serve;
use crate::report::serving::ServeChecked;
use landfall_image::Result;
use std::fmt::Write;

/// Works until it is told to end.
pub fn run(args: &Serve, as_json: bool, surroundings: &Surroundings) -> Result<u8> {
    let config = serve::config(args.config.as_deref())?;
    if args.check {
        let checked = serve::check(&config)?;
        match as_json {
            true => text::print_json(&checked)?,
            false => text::print(&in_words(&checked))?,
        }
        return Ok(0);
    }
    serve::serve(config, surroundings.notify.clone(), &surroundings.cancel)?;
    Ok(0)
}

fn in_words(checked: &ServeChecked) -> String {
    let mut out = String::new();
    let list = |all: &[String]| all.join(", ");
    let _ = writeln!(out, "vault       {}", checked.vault);
    let _ = writeln!(out, "NBD         {}", list(&checked.receive));
    let _ = writeln!(out, "points      {}", checked.points);
    let _ = writeln!(out, "API         {}", list(&checked.api));
    let rules = &checked.protect;
    let _ = writeln!(
        out,
        "machines    a point every {}, RPO {}, kept {}",
        rules.checkpoint, rules.rpo, rules.retention
    );
    for (name, rules) in &checked.machines {
        let _ = writeln!(
            out,
            "  {name}: a point every {}, RPO {}, kept {}",
            rules.checkpoint, rules.rpo, rules.retention
        );
    }
    for (name, members) in &checked.groups {
        let _ = writeln!(out, "group {name}: {}, cut at one moment", list(members));
    }
    out.push_str("Nothing is wrong with the file.\n");
    out
}
