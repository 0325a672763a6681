//! Alarms, as somebody else's program wants to hear of them: each that begins or ends, by POST, in their order.
//!
//! A program that does not answer is asked again after growing pauses. Meanwhile alarms wait, and that they do is an alarm itself. They wait
//! beyond the end of the service, in the catalog: what was not told is told by the next one; what was told as the service was killed may be told
//! twice.

use super::Service;
use crate::report::VERSION;
use crate::report::api::{Event, Told};
use crate::transport::{TlsConnector, trusting};
use landfall_image::convert::Cancel;
use landfall_image::{Error, Kind, Result};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};

/// Alarms that wait; of more, the oldest is given up.
pub(super) const WAITING_AT_MOST: usize = 1000;
/// For one attempt.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the first two attempts; doubled from one to the next, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_AT_MOST: Duration = Duration::from_secs(300);

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Webhook {
    state: Mutex<State>,
    wake: Condvar,
    cancel: Cancel,
}

type Waiting = (Option<i64>, Event);

#[derive(Debug, Default)]
struct State {
    /// Each with its number in the catalog, where it could be written there.
    waiting: VecDeque<Waiting>,
    /// Why the last attempt failed.
    trouble: Option<String>,
}

impl Webhook {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what the service before this one did not tell.
    pub(super) fn with(waiting: Vec<(i64, Event)>) -> Webhook {
        let waiting = waiting.into_iter().map(|(number, event)| (Some(number), event)).collect();
        Webhook { state: Mutex::new(State { waiting, trouble: None }), ..Webhook::default() }
    }

    /// Has an alarm told.
    pub(super) fn tell(&self, number: Option<i64>, event: Event) {
        let mut state = self.state();
        if state.waiting.len() >= WAITING_AT_MOST
            && let Some((_, lost)) = state.waiting.pop_front()
        {
            tracing::error!(
                id = lost.alarm.id,
                "too many alarms wait for the webhook; the oldest is given up"
            );
        }
        state.waiting.push_back((number, event));
        self.wake.notify_one();
    }

    /// Why the last alarm could not be told, where it could not.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    pub(super) fn stop(&self) {
        self.cancel.cancel();
        self.wake.notify_all();
    }

    /// The first that waits, once there is one; it stays in its place. `None` when the service stops.
    fn first(&self) -> Option<Waiting> {
        let mut state = self.state();
        while !self.cancel.is_cancelled() {
            if let Some(first) = state.waiting.front() {
                return Some(first.clone());
            }
            let waited = self.wake.wait_timeout(state, Duration::from_secs(1));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// Takes down what came of an attempt to tell the first.
    fn told(&self, first: &Waiting, outcome: &Result<()>) {
        let mut state = self.state();
        state.trouble = outcome.as_ref().err().map(ToString::to_string);
        // It may have been given up meanwhile.
        if outcome.is_ok() && state.waiting.front() == Some(first) {
            state.waiting.pop_front();
        }
    }

    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state();
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !self.cancel.is_cancelled()
        {
            // New alarms wake it too early.
            let waited = self.wake.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Service {
    /// Sends alarms to the webhook until the service stops. Takes a thread.
    pub fn send_alarms(&self) {
        let mut pause = PAUSE;
        let mut poster = None;
        while let Some(first) = self.webhook.first() {
            let Some(url) = &self.config.alarm.webhook else { return };
            let sent = self.send(&mut poster, url, &first.1);
            self.webhook.told(&first, &sent);
            match sent {
                Ok(()) => {
                    pause = PAUSE;
                    if let Err(error) = first.0.map_or(Ok(()), |number| self.catalog.told(number)) {
                        tracing::error!(%error, "that an alarm was told cannot be written down; it will be told again");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, id = first.1.alarm.id, again_after = ?pause, "an alarm cannot be sent");
                    self.webhook.pause(pause);
                    pause = (pause * 2).min(PAUSE_AT_MOST);
                    // The system's authorities may have changed.
                    poster = None;
                }
            }
        }
    }

    fn send(&self, poster: &mut Option<Agent>, url: &str, event: &Event) -> Result<()> {
        let agent = match poster {
            Some(agent) => agent,
            None => poster.insert(agent(url)?),
        };
        let service = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let told = Told { version: VERSION, service, event: event.clone() };
        let text = serde_json::to_string(&told)
            .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
        let answer = agent.post(url).header("Content-Type", "application/json").send(text);
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Error::new(Kind::Io, format!("{} is its answer", answer.status()))),
            Err(error) => Err(Error::new(Kind::Io, error.to_string())),
        }
    }
}

fn agent(url: &str) -> Result<Agent> {
    let config = Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(PATIENCE))
        // A program that was started again has closed the connections of before.
        .max_idle_connections(0)
        .build();
    let connector = ().chain(TcpConnector::default());
    Ok(match url.starts_with("https:") {
        true => {
            let connector = connector.chain(TlsConnector(trusting(None)?));
            Agent::with_parts(config, connector, DefaultResolver::default())
        }
        false => Agent::with_parts(config, connector, DefaultResolver::default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::Moment;
    use crate::report::api::Change;
    use crate::report::protection::{Alarm, Gravity};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::path::Path;

    fn event(number: u64) -> Event {
        let alarm = Alarm {
            id: "rpo-missed".into(),
            gravity: Gravity::Critical,
            machine: Some("web01".into()),
            says: format!("number {number}"),
            remedy: "r".into(),
            since: Moment(number),
        };
        Event { at: Moment(number), change: Change::Began, alarm }
    }

    /// The service's thread ends with the test, however that ends.
    struct Stops<'s>(&'s Service);

    impl Drop for Stops<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }

    /// Takes one request, and answers it with that status.
    fn take(listener: &TcpListener, status: &str) -> Told {
        listener.set_nonblocking(true).unwrap();
        let begin = Instant::now();
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(60), "nothing is told: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_nonblocking(false).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "POST /hook HTTP/1.1");
        let mut len = 0;
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                len = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body).unwrap();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn alarms_are_told_in_their_order_again_until_they_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!(
            "vault = \"vault\"\n[alarm]\nwebhook = \"http://{}/hook\"\n",
            listener.local_addr().unwrap()
        );
        let config = crate::service::config::Config::parse(&text, Path::new(dir.path())).unwrap();
        let service = Service::open(config).unwrap();
        service.webhook.tell(None, event(1));
        service.webhook.tell(None, event(2));
        std::thread::scope(|scope| {
            let _stops = Stops(&service);
            scope.spawn(|| service.send_alarms());
            let first = take(&listener, "500 Internal Server Error");
            assert_eq!((first.event, first.version), (event(1), VERSION));
            assert!(!first.service.is_empty());
            // Until it is told, that it is not is an alarm.
            let wait = |wanted: bool| {
                let begin = Instant::now();
                while service.webhook.trouble().is_some() != wanted {
                    assert!(begin.elapsed() < Duration::from_secs(30));
                    std::thread::sleep(Duration::from_millis(10));
                }
            };
            wait(true);
            assert!(service.webhook.trouble().unwrap().contains("500"));
            assert_eq!(take(&listener, "204 No Content").event, event(1), "it is told again");
            assert_eq!(take(&listener, "200 OK").event, event(2));
            wait(false);
            service.webhook.tell(None, event(3));
            assert_eq!(take(&listener, "200 OK").event, event(3));
        });
    }

    #[test]
    fn who_never_answers_costs_a_bounded_number_of_alarms() {
        let webhook = Webhook::default();
        for number in 0..WAITING_AT_MOST as u64 + 7 {
            webhook.tell(None, event(number));
        }
        assert_eq!(webhook.state().waiting.len(), WAITING_AT_MOST);
        assert_eq!(webhook.first().unwrap(), (None, event(7)), "the oldest went");
        webhook.stop();
        assert_eq!(webhook.first(), None);
    }
}
