//! The program. Finds out about its surroundings, runs one command, exits.

use clap::Parser;
use landfall::cli::{self, Surroundings, args::Cli};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> ExitCode {
    // The same file is PID 1 of the patch sandbox, where there is nothing else to find out.
    if landfall_boot::sandbox::agent::is_sandbox() {
        landfall_boot::sandbox::agent::run();
    }
    let cli = Cli::parse();
    log(cli.common.verbose);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the program at once; the order of the two lines matters.
        let registered = signal_hook::flag::register_conditional_shutdown(signal, 2, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        if let Err(error) = registered {
            eprintln!("landfall: cannot watch for signal {signal}: {error}");
        }
    }
    ExitCode::from(cli::run(&cli, &Surroundings { cancel: stop.into() }))
}

/// Logs go to standard error: warnings, and more with `-v`. LANDFALL_LOG takes a filter of its own.
fn log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = ["warn", "info,landfall=debug", "trace"][usize::from(verbose.min(2))];
    let filter = EnvFilter::try_from_env("LANDFALL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}
