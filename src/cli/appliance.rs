//! `landfall appliance`

use super::args::{ApplianceBuild, ApplianceVerb, StartStep};
use super::{Surroundings, text};
use crate::appliance::{data, helper, power, start};
use crate::ops::Context;
use crate::ops::appliance::console::Places;
use crate::ops::appliance::{self, Built, MIRRORS, Packages, Wanted};
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;

/// Builds, lists, or does a step of the running appliance.
pub fn run(
    verb: &ApplianceVerb,
    as_json: bool,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> Result<u8> {
    match verb {
        ApplianceVerb::Build(args) => build(args, as_json, context),
        ApplianceVerb::Key { file } => {
            appliance::make_key(file)?;
            text::print(&format!("{}\n{}.pub\n", file.display(), file.display()))?;
            Ok(0)
        }
        ApplianceVerb::Packages => packages(as_json),
        ApplianceVerb::Start { step } => step_of(*step, &context.cancel),
        ApplianceVerb::Helper { user } => helper::run(user, &context.cancel).map(|()| 0),
        ApplianceVerb::Update { file, restart } => update(file, *restart),
        ApplianceVerb::Trial => appliance::trial(&context.cancel).map(|()| 0),
        ApplianceVerb::Support { output } => support(output.as_deref()),
        ApplianceVerb::Console => (surroundings.console)(&context.cancel).map(|()| 0),
    }
}

fn support(output: Option<&Path>) -> Result<u8> {
    let places = Places::default();
    match output {
        Some(path) => appliance::support_file(&places, path)?,
        None if std::io::stdout().is_terminal() => {
            return Err(Error::refused("the bundle is no text, and standard output is a terminal")
                .hint("name a file, -o bundle.tar.zst, or send it there: > bundle.tar.zst"));
        }
        None => {
            let mut out = std::io::stdout().lock();
            appliance::support(&places, &mut out)?;
            out.flush().map_err(|error| Error::io("cannot write to standard output", error))?;
        }
    }
    Ok(0)
}

fn update(file: &Path, restart: bool) -> Result<u8> {
    let places = Places::default();
    for line in appliance::install(&places, file)? {
        text::print(&format!("{line}\n"))?;
    }
    match restart {
        true => appliance::restart(&places)?,
        false => text::print("It is tried at the next start (console: restart).\n")?,
    }
    Ok(0)
}

fn step_of(step: StartStep, cancel: &Cancel) -> Result<u8> {
    match step {
        StartStep::State => start::state(),
        StartStep::Media => start::media(),
        StartStep::Settings => start::settings(),
        StartStep::Resolv => start::resolv(),
        StartStep::Welcome => start::welcome(),
        StartStep::Update => start::update(),
        StartStep::Grow => start::grow(),
        StartStep::Power => power::run(cancel),
        StartStep::Data => data::data(),
        StartStep::Addresses => start::addresses_changed(),
        StartStep::Confirm => start::confirm(),
    }?;
    Ok(0)
}

fn packages(as_json: bool) -> Result<u8> {
    let list = appliance::list(None)?;
    if as_json {
        text::print_json(&serde_json::json!({
            "version": crate::report::VERSION,
            "snapshot": list.snapshot,
            "packages": list.packages,
        }))?;
        return Ok(0);
    }
    let mut out = String::new();
    for package in &list.packages {
        let _ = writeln!(out, "{}  {}/{}", package.sha256, package.archive, package.path);
    }
    text::print(&out)?;
    Ok(0)
}

fn build(args: &ApplianceBuild, as_json: bool, context: &Context<'_>) -> Result<u8> {
    let mirrors = match (args.offline, args.mirror.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => MIRRORS.map(str::to_owned).to_vec(),
        (false, false) => args.mirror.clone(),
    };
    let folder = args.packages.clone();
    let wanted = Wanted {
        outputs: args.outputs.clone(),
        packages: Packages {
            folder: folder.unwrap_or_else(|| context.sandbox.cache_folder.join("packages")),
            mirrors,
        },
        list: args.list.clone(),
        program: args.program.clone().unwrap_or_else(|| context.sandbox.agent.clone()),
        update_key: args.update_key.clone(),
        force: args.force,
        level: args.level,
        sign: args.sign.clone(),
    };
    let built = appliance::build(context, &wanted)?;
    match as_json {
        true => text::print_json(&built)?,
        false => text::print(&in_words(&built))?,
    }
    Ok(0)
}

fn in_words(built: &Built) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "packages  {}", built.snapshot);
    let _ = writeln!(out, "kernel    {}", built.kernel);
    let _ = writeln!(out, "root      {}", built.root);
    let _ = writeln!(out, "system    sha256:{}", built.system);
    for image in &built.images {
        let _ = writeln!(out, "image     {} ({}, {})", image.path, image.kind, image.size);
        for beside in &image.beside {
            let _ = writeln!(out, "          {beside}");
        }
    }
    out
}
