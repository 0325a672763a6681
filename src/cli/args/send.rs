//! The grammar of `landfall send`.

use super::service::said;
use crate::moment::Moment;
use crate::name::Name;
use crate::ops::parse_size;
use crate::ops::source::point::PointName;
use crate::vault::retention::duration;
use clap::Args;
use landfall_image::Bytes;
use std::time::Duration;

/// `landfall send`
#[derive(Debug, Args)]
pub struct Send {
    /// The machine, and which of its points [default: the newest]: web01, web01@NUMBER, @2026-11-29T14:03:05Z, @-15m, @tag:NAME
    #[arg(value_name = "MACHINE[@AT]", value_parser = parse_point)]
    pub point: PointName,
    /// The other landfall: https://HOST:8470, or the socket of a service on this machine (api.sock); or a folder, for a seed
    #[arg(long, value_name = "PLACE")]
    pub to: String,
    /// Call the machine by this name there [default: as it is called here]
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<Name>,
    /// The machine of that name there may be another one: it becomes this one, and keeps its points
    #[arg(long)]
    pub replace: bool,
    /// Send at most this many bytes per second, packed: 20MiB/s, 1G
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    pub limit: Option<Bytes>,
    /// Try again for so long where nothing comes through; then end, to be gone on with later
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    pub patience: Duration,
}

fn parse_point(text: &str) -> Result<PointName, String> {
    PointName::parse(text, Moment::now()).map_err(said)
}

fn parse_rate(text: &str) -> Result<Bytes, String> {
    parse_size(text.trim().trim_end_matches("/s"))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    duration(text.trim()).ok_or_else(|| format!("{text:?} is no time: write it like 30s, 10m or 2h"))
}
