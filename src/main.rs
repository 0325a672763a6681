//! The program. Finds out about its surroundings, runs one command, exits.

use clap::Parser;
use landfall::cli::args::{Cli, LogForm, Verb};
use landfall::cli::{self, Surroundings};
use landfall::registrar::credentials::Credentials;
use landfall_boot::sandbox::Settings;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use zeroize::Zeroizing;

fn main() -> ExitCode {
    // The same file is PID 1 of the patch sandbox, where there is nothing else to find out.
    if landfall_boot::sandbox::agent::is_sandbox() {
        landfall_boot::sandbox::agent::run();
    }
    // And of the appliance's initrd.
    if landfall_boot::appliance::init::is_first() {
        landfall_boot::appliance::init::run();
    }
    let cli = Cli::parse();
    log(&cli);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the program at once; the order of the two lines matters.
        let registered = signal_hook::flag::register_conditional_shutdown(signal, 2, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        if let Err(error) = registered {
            eprintln!("landfall: cannot watch for signal {signal}: {error}");
        }
    }
    let surroundings = Surroundings {
        scratch: std::env::temp_dir(),
        sandbox: sandbox(&stop),
        recovered: recovered(),
        credentials: credentials(),
        cancel: stop.into(),
        service: value("LANDFALL_SERVICE"),
        token: value("LANDFALL_TOKEN").map(Zeroizing::new),
        notify: std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).map(PathBuf::from),
        console: landfall::console::run,
    };
    ExitCode::from(cli::run(&cli, &surroundings))
}

/// What the environment says, where it says something.
fn value(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where machines are recovered: LANDFALL_RECOVERED, else the host's folder for root, and a folder of their own for others.
fn recovered() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("LANDFALL_RECOVERED").unwrap_or_else(|| match rustix::process::geteuid().is_root() {
        true => "/var/lib/landfall/recovered".into(),
        false => {
            let home = folder("HOME").unwrap_or_else(std::env::temp_dir);
            folder("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("landfall/recovered")
        }
    })
}

/// User name and password of a hypervisor: LANDFALL_USER and LANDFALL_PASSWORD.
fn credentials() -> Option<Credentials> {
    Some(Credentials::new(value("LANDFALL_USER")?, value("LANDFALL_PASSWORD")?))
}

/// Where the sandbox's parts are on this host. LANDFALL_DATA names the folder with `sandbox/` in it, LANDFALL_CACHE
/// the one for what can be made again.
fn sandbox(stop: &Arc<AtomicBool>) -> Settings {
    let this = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = folder("HOME").unwrap_or_else(std::env::temp_dir);
    let cache = folder("LANDFALL_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("landfall")))
        .unwrap_or_else(|| home.join(".cache/landfall"));
    let data = folder("LANDFALL_DATA").or_else(|| {
        let shared = folder("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("landfall");
        let installed = ["/usr/share/landfall", "/usr/lib/landfall"].map(PathBuf::from);
        // Beside the program: the build's own folder, or a prefix of one's own.
        let beside = this.ancestors().skip(1).take(4).map(Path::to_owned);
        beside.chain([shared]).chain(installed).find(|folder| folder.join("sandbox/lib/modules").is_dir())
    });
    let mut settings = Settings::new(this, cache);
    settings.data_folder = data;
    settings.kernel_folder = folder("LANDFALL_SANDBOX_KERNEL");
    settings.cancel = Arc::clone(stop);
    settings
}

/// Logs go to standard error: warnings, and more with `-v`. LANDFALL_LOG takes a filter of its own.
fn log(cli: &Cli) {
    use tracing_subscriber::EnvFilter;
    let verbose = cli.common.verbose;
    let served = match &cli.verb {
        Verb::Serve(serve) if !serve.check => Some(serve.log),
        _ => None,
    };
    let level = match (verbose, served) {
        (0, Some(_)) => "info",
        _ => ["warn", "info,landfall=debug", "trace"][usize::from(verbose.min(2))],
    };
    let filter = EnvFilter::try_from_env("LANDFALL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .log_internal_errors(false);
    if served == Some(LogForm::Json) {
        return lines.json().init();
    }
    // A warning is read by a person, a log by whoever looks for what took so long.
    if verbose == 0 && served.is_none() { lines.without_time().init() } else { lines.init() }
}
