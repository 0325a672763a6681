//! `landfall receive`, and `landfall points export`.

mod words;

use super::args::{
    AtService, Cli, PointsExport, ReceiveFolder, ReceiveGiveUp, ReceivePull, ReceiveRbd, ReceiveSeal,
    ReceiveSeed, ReceiveVerb,
};
use super::text::{self, print_json, say};
use super::{Surroundings, service_at};
use crate::moment::Moment;
use crate::ops::receive::{self, Export, Place, Streams};
use crate::ops::source::point::At;
use crate::ops::{Context, Failure};
use crate::receive::ExportName;
use crate::receive::folder::manifest::Manifest;
use crate::receive::folder::{Became, Options};
use crate::receive::rbd::record::Version;
use crate::report::VERSION;
use crate::report::receiving::{PullBitmap, PullFrom, Pulled, ReceivedStreams, Scanned, WantedPull};
use crate::report::sending::HeldShown;
use crate::vault::journal::Consistency;
use landfall_image::nbd::Uri;
use landfall_image::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs one of them; the exit code.
pub fn run(
    verb: &ReceiveVerb,
    cli: &Cli,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> std::result::Result<u8, Failure> {
    let run = Run { cli, context, surroundings };
    let done = match verb {
        ReceiveVerb::Rbd(args) => run.rbd(args),
        ReceiveVerb::Pull(args) => run.pull(args),
        ReceiveVerb::Folder(args) => run.folder(args),
        ReceiveVerb::Seal(args) => run.seal(args),
        ReceiveVerb::Seed(args) => run.seed(args),
        ReceiveVerb::GiveUp(args) => run.give_up(args),
    };
    done.map_err(Failure::from)
}

/// `landfall points export`
pub fn export(
    args: &PointsExport,
    cli: &Cli,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> std::result::Result<u8, Failure> {
    Run { cli, context, surroundings }.export(args).map_err(Failure::from)
}

struct Run<'a> {
    cli: &'a Cli,
    context: &'a Context<'a>,
    surroundings: &'a Surroundings,
}

impl Run<'_> {
    fn place(&self, at: &AtService) -> Result<Place> {
        match &self.cli.common.vault {
            Some(folder) => Ok(Place::Vault(folder.clone())),
            None => Ok(Place::Service(Box::new(service_at(at, self.cli, self.surroundings)?))),
        }
    }

    fn show<D: serde::Serialize>(&self, document: &D, in_words: impl FnOnce(&D) -> String) -> Result<()> {
        match self.cli.common.json {
            true => print_json(document),
            false => text::print(&in_words(document)),
        }
    }

    fn seed(&self, args: &ReceiveSeed) -> Result<u8> {
        let place = self.place(&args.at)?;
        let done = receive::take_seed(self.context, &place, &args.folder, args.name.as_ref(), args.replace)?;
        self.show(&done, super::send::in_words)?;
        Ok(crate::ops::send::exit_code(done.verdict))
    }

    fn give_up(&self, args: &ReceiveGiveUp) -> Result<u8> {
        let held = receive::give_up(self.context, &self.place(&args.at)?, &args.name)?;
        self.show(&HeldShown { version: VERSION, held }, |shown| words::held(&shown.held))?;
        Ok(0)
    }

    fn rbd(&self, args: &ReceiveRbd) -> Result<u8> {
        let mut disks = vec![(args.disk.clone(), args.file.clone())];
        for pair in args.more.chunks(2) {
            let [disk, file] = pair else {
                return Err(Error::refused(format!("{:?} has no file", pair.concat()))
                    .hint("name each further disk with its stream: web01/sdb sdb.diff"));
            };
            let disk = ExportName::parse(disk).ok_or_else(|| {
                Error::refused(format!("{disk:?} is no MACHINE/DISK")).hint("write it like web01/sdb")
            })?;
            disks.push((disk, PathBuf::from(file)));
        }
        let wanted = Streams {
            disks,
            sha256: args.sha256,
            replace: args.replace,
            apart: args.into.apart,
            taken_at: args.into.taken_at,
        };
        let place = self.place(&args.into.at)?;
        let outcome = receive::streams(self.context, &place, &wanted, &mut std::io::stdin().lock())?;
        self.show(&ReceivedStreams { version: VERSION, outcome }, words::streams)?;
        Ok(0)
    }

    fn pull(&self, args: &ReceivePull) -> Result<u8> {
        if let Some((other, _)) =
            args.bitmap.iter().find(|(other, _)| !args.disk.iter().any(|(disk, _)| disk == other))
        {
            return Err(Error::refused(format!("--bitmap is for {other}, which is not pulled"))
                .hint("name a disk that is"));
        }
        let mut disks = Vec::new();
        for (disk, uri) in &args.disk {
            let own = args.bitmap.iter().find(|(other, _)| other == disk).map(|(_, name)| name.clone());
            // As libvirt calls it: virsh backup-begin, exportbitmap.
            let usual = format!("backup-{}", Uri::parse(uri)?.export());
            let bitmap = args
                .since
                .as_ref()
                .map(|since| PullBitmap { name: own.unwrap_or(usual), since: since.clone() });
            disks.push(PullFrom { disk: disk.clone(), uri: uri.clone(), bitmap });
        }
        let wanted = WantedPull {
            disks,
            checkpoint: args.checkpoint.clone(),
            taken_at: args.into.taken_at,
            consistency: if args.application { Consistency::Application } else { Consistency::Crash },
            apart: args.into.apart,
        };
        let outcome = receive::pull(self.context, &self.place(&args.into.at)?, &args.name, &wanted)?;
        self.show(&Pulled { version: VERSION, outcome }, words::pulled)?;
        Ok(0)
    }

    fn folder(&self, args: &ReceiveFolder) -> Result<u8> {
        let options = Options { manifest: args.manifest, keep: args.keep };
        let drops = receive::folder(self.context, &self.place(&args.at)?, &args.folder, options)?;
        let code = drops.iter().map(|drop| match drop.became {
            Became::Taken(_) | Became::Waiting { .. } => 0,
            Became::Refused(_) => 1,
            Became::Failed(_) => 2,
        });
        let code = code.max().unwrap_or(0);
        // As it stands in the outcomes.
        let folder = args.folder.canonicalize().unwrap_or_else(|_| args.folder.clone());
        let scanned = Scanned { version: VERSION, folder: folder.display().to_string(), drops };
        self.show(&scanned, words::scanned)?;
        Ok(code)
    }

    fn seal(&self, args: &ReceiveSeal) -> Result<u8> {
        let given = Manifest {
            machine: args.machine.as_ref().map(ToString::to_string),
            taken_at: args.taken_at,
            consistency: if args.application { Consistency::Application } else { Consistency::Crash },
            tag: args.tag.clone(),
            ..Manifest::default()
        };
        let (path, manifest) = receive::seal(self.context, &args.drop, given)?;
        self.show(&manifest, |manifest| words::sealed(&path, manifest))?;
        Ok(0)
    }

    fn export(&self, args: &PointsExport) -> Result<u8> {
        let is_stdout = args.output == Path::new("-");
        if is_stdout && self.cli.common.json {
            return Err(Error::refused("--json and -o - would both be on standard output")
                .hint("write the diff into a file"));
        }
        let since = args.since.as_ref().map(|since| At::parse(since, Moment::now())).transpose()?;
        let wanted = Export {
            point: args.point.clone(),
            disk: args.disk.clone(),
            since,
            snapshot: args.snapshot.clone(),
            since_snapshot: args.since_snapshot.clone(),
            format: if args.format == "v2" { Version::V2 } else { Version::V1 },
        };
        let place = self.place(&args.at)?;
        if is_stdout {
            let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            let done = receive::export(self.context, &place, &wanted, &mut out)?;
            out.flush().map_err(|error| Error::io("cannot write to standard output", error))?;
            if !self.cli.common.quiet {
                say(words::exported(&done, None).trim_end());
            }
            return Ok(0);
        }
        let done = receive::export_to(self.context, &place, &wanted, &args.output, args.replace)?;
        self.show(&done, |done| words::exported(done, Some(&args.output)))?;
        Ok(0)
    }
}
