//! `landfall send`

use super::Surroundings;
use super::args::{Cli, Send};
use super::text::{self, print_json};
use crate::ops::send::{self, Request};
use crate::ops::service::{Access, Service};
use crate::ops::source::point::Points;
use crate::ops::{Context, Failure};
use crate::receive::content::Effort;
use crate::receive::digest::Verdict;
use crate::report::sending::{Seeded, Sending, Way};
use landfall_image::Error;
use landfall_image::convert::RateLimit;
use landfall_image::nbd::TlsFiles;
use std::fmt::Write;
use std::path::Path;

/// Runs it; the exit code.
pub fn run(
    args: &Send,
    cli: &Cli,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> Result<u8, Failure> {
    let points: &dyn Points = context.points.as_deref().ok_or_else(|| Error::refused("no vault is named"))?;
    let common = &cli.common;
    let mut effort = Effort { cancel: context.cancel.clone(), ..Effort::default() };
    effort.jobs = context.jobs.unwrap_or(effort.jobs);
    if Path::new(&args.to).is_dir() {
        let given =
            [("--as", args.name.is_some()), ("--replace", args.replace), ("--limit", args.limit.is_some())];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Error::refused(format!(
                "{option} is for a send over the line, and {} is a folder",
                args.to
            ))
            .hint("say it where the seed is taken: landfall receive seed")
            .into());
        }
        let done = send::seed::write(&effort, context.observer, points, &args.point, Path::new(&args.to))?;
        match common.json {
            true => print_json(&done)?,
            false => text::print(&seed_in_words(&done))?,
        }
        return Ok(0);
    }
    if !args.to.contains("://") && !Path::new(&args.to).exists() {
        return Err(Error::refused("there is no such folder, and no socket of a service")
            .in_file(Path::new(&args.to))
            .hint("mount or make the folder for a seed; or name the other landfall: https://HOST:8470")
            .into());
    }
    let access = Access {
        service: Some(args.to.clone()),
        token: surroundings.token.clone(),
        ca: common.tls_ca.clone(),
    };
    let own =
        TlsFiles { certificate: common.tls_cert.clone(), key: common.tls_key.clone(), ..TlsFiles::default() };
    let to = Service::with_certificate(&access, &own)?;
    let request = Request {
        point: args.point.clone(),
        name: args.name.clone().unwrap_or_else(|| args.point.machine.clone()),
        replace: args.replace,
        limit: args.limit.map(RateLimit::new),
        patience: args.patience,
    };
    let done = send::send(&effort, context.observer, points, &request, &to)?;
    match common.json {
        true => print_json(&done)?,
        false => text::print(&in_words(&done))?,
    }
    Ok(send::exit_code(done.verdict))
}

fn seed_in_words(done: &Seeded) -> String {
    let mut out = format!("Seed of {}: {}\n", done.source, done.folder);
    let kept = if done.kept > 0 { format!(", {} of them from before", done.kept) } else { String::new() };
    let _ = writeln!(out, "  {} disks in {} files, {}{kept}", done.disks.len(), done.files, done.bytes);
    let _ = writeln!(out, "  at the other side: landfall receive seed {}", done.folder);
    out
}

/// What came of a send, for people.
pub fn in_words(done: &Sending) -> String {
    let mut out = String::new();
    let head = match done.verdict {
        Verdict::Matched => "matched",
        Verdict::Differed => "DIFFERED",
        Verdict::CouldNotRun => "COULD NOT RUN",
    };
    let _ = writeln!(out, "{head}: {} at {}: {}", done.machine, done.to, done.says);
    if let Some(point) = done.point {
        let _ = writeln!(
            out,
            "  point {point} there is point {} of {}, {}",
            done.source.number, done.source.machine, done.source.at
        );
    }
    for disk in &done.disks {
        let way = match disk.way {
            Way::Differences => "by the journal",
            Way::Digests => "by digests",
            Way::Whole => "as a whole",
        };
        let _ = writeln!(
            out,
            "  {}, {}: {way}, {} looked at, {} sent, {} read back there",
            disk.name, disk.size, disk.looked_at, disk.content, disk.checked
        );
        if let Some(why) = &disk.why {
            let _ = writeln!(out, "      {why}");
        }
    }
    let _ = writeln!(
        out,
        "  {} over the line{}",
        done.line,
        match done.tries {
            0 => String::new(),
            1 => ", said again once".to_owned(),
            tries => format!(", said again {tries} times"),
        }
    );
    if done.verdict != Verdict::Matched {
        out.push_str("fix: Nothing of it is offered there. Look at the medium of the receiver's vault, and send again.\n");
    }
    out
}
