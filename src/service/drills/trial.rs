//! A trial in a process of its own: started by the service, or, where the service may start nothing, by whoever listens at a socket.
//!
//! ```text
//! service -> landfall prove …                                        (a child)
//! service -> socket -> landfall appliance trial (a unit of systemd's) -> landfall prove …
//!            {"arguments": ["prove", …], "api": "/run/landfall/api.sock"}\n  ->   {"code": 0, "document": {…}}\n
//! ```
//! Hanging up ends the trial. A service that hostile machines write to needs no right to make namespaces or mounts then, and what boots their
//! guests has no network.
//!
//! Deliberately absent: anything but trials. What is asked for is checked here once more: the service may be somebody else's by then.

use landfall_image::convert::Cancel;
use landfall_image::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(100);
/// What a process that is told to end may take.
const ENDING: Duration = Duration::from_secs(15);
/// Of what such a process says, so much is read.
const SAID_AT_MOST: u64 = 4 << 20;
/// Of what is asked for.
const ASKED_AT_MOST: u64 = 64 << 10;

/// What is asked for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    arguments: Vec<String>,
    api: PathBuf,
}

/// What came of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Came {
    code: i32,
    document: serde_json::Value,
}

/// A trial that runs, and ends with this.
pub(super) enum Running {
    /// A child.
    Here(Own),
    /// Somebody else's.
    There(UnixStream),
}

impl Running {
    /// Starts it with these arguments, asking the service at `api`; `through` a socket where there is one.
    pub(super) fn start(through: Option<&Path>, api: &Path, arguments: &[&str]) -> Result<Running> {
        let Some(socket) = through else { return Ok(Running::Here(Own::start(api, arguments)?)) };
        let failed = |error| {
            Error::io("whoever runs trials cannot be asked", error)
                .in_file(socket)
                .hint("[drill] through names this socket: systemctl status landfall-trial.socket says whether it is there")
        };
        let mut stream = UnixStream::connect(socket).map_err(failed)?;
        let asked = Asked {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            api: api.to_owned(),
        };
        let mut line = serde_json::to_vec(&asked)
            .map_err(|e| Error::corrupt(format!("a trial cannot be asked for: {e}")))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(failed)?;
        Ok(Running::There(stream))
    }

    /// Its document and whether all went well; an error where it did not end in time, or nobody waits any longer.
    pub(super) fn finish(
        self,
        is_stopping: &dyn Fn() -> bool,
        within: Duration,
    ) -> Result<(serde_json::Value, bool)> {
        let deadline = Instant::now() + within;
        let give_up = || -> Result<()> {
            if is_stopping() {
                return Err(Error::interrupted());
            }
            match Instant::now() >= deadline {
                true => Err(Error::new(Kind::Io, format!("it did not end within {} s", within.as_secs()))),
                false => Ok(()),
            }
        };
        let came = match self {
            Running::Here(own) => own.finish(&give_up)?,
            Running::There(stream) => answer(stream, &give_up)?,
        };
        Ok((came.document, came.code == 0))
    }
}

/// What comes over the socket, when it comes.
fn answer(mut stream: UnixStream, give_up: &dyn Fn() -> Result<()>) -> Result<Came> {
    let failed = |error| Error::io("a trial's outcome cannot be read", error);
    stream.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(part.get(..read).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => give_up()?,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
        if text.len() as u64 > SAID_AT_MOST + ASKED_AT_MOST {
            return Err(Error::refused(format!("a trial says more than {SAID_AT_MOST} bytes")));
        }
    }
    serde_json::from_slice(&text).map_err(|_| {
        Error::corrupt("a trial ended without saying what came of it")
            .hint("the journal of landfall-trial@ says why")
    })
}

/// A process of ours, which ends with this.
pub(super) struct Own(Child);

impl Own {
    /// Starts this program, behind all that is urgent.
    fn start<S: AsRef<str>>(api: &Path, arguments: &[S]) -> Result<Own> {
        let cannot = |error| Error::io("cannot start this program once more", error);
        let program = std::env::current_exe().map_err(cannot)?;
        let nice = Path::new("/usr/bin/nice");
        let mut command = match nice.exists() {
            true => {
                let mut command = Command::new(nice);
                command.args(["-n", "10"]).arg(&program);
                command
            }
            false => Command::new(&program),
        };
        command.arg("--json").args(arguments.iter().map(AsRef::as_ref));
        command.env("LANDFALL_SERVICE", api).env_remove("LANDFALL_TOKEN").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Own(command.spawn().map_err(cannot)?))
    }

    fn finish(mut self, give_up: &dyn Fn() -> Result<()>) -> Result<Came> {
        let out = self.0.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(out) = out {
                let _ = out.take(SAID_AT_MOST).read_to_end(&mut text);
            }
            text
        });
        let failed = |error| Error::io("cannot wait for a process", error);
        let status = loop {
            if let Some(status) = self.0.try_wait().map_err(failed)? {
                break status;
            }
            give_up()?;
            std::thread::sleep(LOOK);
        };
        let text = reader.join().unwrap_or_default();
        let document = serde_json::from_slice(&text).unwrap_or_default();
        Ok(Came { code: status.code().unwrap_or(-1), document })
    }
}

impl Drop for Own {
    /// It is asked to end, so that it takes away what it has made, and is killed where it does not.
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + ENDING;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK / 2);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the trial that is asked for on `stream`, and answers what came of it. It ends when the other side hangs up.
///
/// # Errors
/// Refused where something else is asked for; I/O.
pub fn serve(stream: UnixStream, cancel: &Cancel) -> Result<()> {
    let failed = |error| Error::io("the service cannot be heard", error);
    let mut reader = BufReader::new(stream.try_clone().map_err(failed)?.take(ASKED_AT_MOST));
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).map_err(failed)?;
    let asked: Asked = serde_json::from_slice(&line)
        .map_err(|e| Error::refused(format!("this is no order for a trial: {e}")))?;
    if !is_trial(&asked.arguments) {
        return Err(Error::refused(format!("{:?} is no trial", asked.arguments)));
    }
    let own = Own::start(&asked.api, &asked.arguments)?;
    // Nothing more is to be heard: what is heard is that the other side has hung up.
    stream.set_nonblocking(true).map_err(failed)?;
    let has_hung_up = || {
        let heard = (&stream).read(&mut [0; 1]);
        !matches!(heard, Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted))
    };
    let give_up = || match cancel.is_cancelled() || has_hung_up() {
        true => Err(Error::interrupted()),
        false => Ok(()),
    };
    let came = own.finish(&give_up)?;
    stream.set_nonblocking(false).map_err(failed)?;
    let mut answer = serde_json::to_vec(&came)
        .map_err(|e| Error::corrupt(format!("a trial's outcome cannot be written: {e}")))?;
    answer.push(b'\n');
    (&stream).write_all(&answer).map_err(failed)
}

/// True for what the service asks for: a point is booted, or patched ahead.
fn is_trial(arguments: &[String]) -> bool {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["prove", point, "--to", _, "--timeout", _, "-o", _] => point.starts_with("point:"),
        ["recover", name, "--at", _, "--to", _, "--prepare", "-o", _] => !name.starts_with('-'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_trials_is_run() {
        let is = |words: &[&str]| is_trial(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert!(is(&["prove", "point:web01@3", "--to", "kvm", "--timeout", "900", "-o", "/x"]));
        assert!(is(&["recover", "web01", "--at", "3", "--to", "kvm", "--prepare", "-o", "/x"]));
        assert!(!is(&["prove", "/etc/x.vmx", "--to", "kvm", "--timeout", "900", "-o", "/x"]));
        assert!(!is(&["recover", "--register", "--at", "3", "--to", "kvm", "--prepare", "-o", "/x"]));
        assert!(!is(&["unprotect", "web01"]) && !is(&[]));
    }

    #[test]
    fn what_is_no_order_is_refused_and_hung_up_on() {
        for line in ["", "{}\n", "{\"arguments\": [\"unprotect\", \"web01\"], \"api\": \"/x\"}\n"] {
            let (mut mine, theirs) = UnixStream::pair().unwrap();
            mine.write_all(line.as_bytes()).unwrap();
            mine.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(serve(theirs, &Cancel::default()).unwrap_err().kind(), Kind::Refused);
            let error = answer(mine, &|| Ok(())).err().unwrap();
            assert!(error.to_string().contains("without saying"), "{error}");
        }
    }

    #[test]
    fn an_answer_is_waited_for_and_given_up() {
        let (mine, mut theirs) = UnixStream::pair().unwrap();
        let error = answer(mine, &|| Err(Error::interrupted())).err().unwrap();
        assert_eq!(error.kind(), Kind::Interrupted);
        let (mine, other) = UnixStream::pair().unwrap();
        drop(std::mem::replace(&mut theirs, other));
        theirs.write_all(b"{\"code\": 1, \"document\": {\"a\": 1}}\n").unwrap();
        drop(theirs);
        let came = answer(mine, &|| Ok(())).unwrap();
        assert_eq!((came.code, came.document["a"].as_u64()), (1, Some(1)));
    }
}
