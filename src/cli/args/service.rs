//! The grammar of the service's verbs.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `landfall serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// The service's file (TOML; landfall schema serve-file) [default: /etc/landfall/landfall.toml where it is there]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only look whether the file can be used, and say what it means
    #[arg(long)]
    pub check: bool,
    /// Write the log in this form
    #[arg(long, value_enum, value_name = "FORM", default_value_t = LogForm::Text)]
    pub log: LogForm,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Lines for people
    Text,
    /// A JSON document in each line
    Json,
}
