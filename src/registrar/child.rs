//! Other programs, run without a shell: arguments as they are, output read whole up to a limit, an end to waiting.
//!
//! Their standard input is empty. They stay in this program's process group, so that SSH can ask at the terminal.

use landfall_image::convert::Cancel;
use landfall_image::{Error, Kind, Result};
use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A definition has some KiB, a list of machines less.
const OUTPUT: u64 = 16 << 20;

/// What a program said.
pub(super) struct Said {
    /// It ended with 0.
    pub fine: bool,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its complaints, as one line.
    pub complaint: String,
}

/// Runs `program` for at most `within`.
///
/// # Errors
/// I/O where it cannot be run or takes longer; [`Kind::Interrupted`] once the user asked to stop, if `cancel` is given.
pub(super) fn run(program: &str, args: &[&OsStr], within: Duration, cancel: Option<&Cancel>) -> Result<Said> {
    let mut child = Command::new(program)
        .args(args)
        // Output is read: in the language that its form is known in.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            let absent = e.kind() == ErrorKind::NotFound;
            let error = Error::io(format!("cannot run {program}"), e);
            if absent { error.hint(package_of(program)) } else { error }
        })?;
    let out = reader(child.stdout.take());
    let complaints = reader(child.stderr.take());
    let fine = wait(&mut child, within, cancel).map_err(|error| match error.kind() {
        Kind::Interrupted => error,
        _ => Error::io(format!("{program} {}", shown(args)), std::io::Error::other(error.says().to_owned())),
    })?;
    let complaint = String::from_utf8_lossy(&complaints.join().unwrap_or_default())
        .lines()
        .map(|line| line.trim().trim_start_matches("error: "))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    Ok(Said { fine, out: out.join().unwrap_or_default(), complaint })
}

fn package_of(program: &str) -> String {
    match program {
        "virsh" => "install libvirt-clients (Debian) or libvirt-client (RHEL)".to_owned(),
        other => format!("install {other}"),
    }
}

/// The arguments for a message.
pub(super) fn shown(args: &[&OsStr]) -> String {
    args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What could be read is what there is to show.
            let _ = pipe.by_ref().take(OUTPUT).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        bytes
    })
}

/// True where it ended with 0. It does not outlive this call.
fn wait(child: &mut Child, within: Duration, cancel: Option<&Cancel>) -> Result<bool> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    let gave_up = loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) => {}
            Err(e) => break Error::io("cannot wait for a program", e),
        }
        if cancel.is_some_and(Cancel::is_cancelled) {
            break Error::interrupted();
        }
        if started.elapsed() > within {
            break Error::new(Kind::Io, format!("gave no answer in {} s", within.as_secs()));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    let _ = child.kill();
    let _ = child.wait();
    Err(gave_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, within: Duration, cancel: Option<&Cancel>) -> Result<Said> {
        run("sh", &["-c".as_ref(), script.as_ref()], within, cancel)
    }

    #[test]
    fn programs_are_waited_for_and_not_for_ever() {
        const LONG: Duration = Duration::from_secs(60);
        let said = sh("echo out; printf 'error: one\\n\\nerror: two\\n' >&2; exit 3", LONG, None).unwrap();
        assert!(!said.fine);
        assert_eq!((said.out.as_slice(), said.complaint.as_str()), (&b"out\n"[..], "one; two"));
        let started = Instant::now();
        let error = sh("exec sleep 100", Duration::from_millis(100), None).err().unwrap();
        assert!(error.to_string().contains("gave no answer"), "{error}");
        let cancel = Cancel::default();
        cancel.cancel();
        assert_eq!(sh("exec sleep 100", LONG, Some(&cancel)).err().unwrap().kind(), Kind::Interrupted);
        assert!(started.elapsed() < LONG / 2);
        let absent = run("landfall-no-such-program", &[], LONG, None).err().unwrap();
        assert!(absent.hint_text().is_some_and(|hint| hint.contains("install")), "{absent}");
    }
}
