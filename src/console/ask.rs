//! Threads that ask, so that drawing never waits.

use crate::ops::appliance::console::{Local, Machine, Places, Problem, Protection, Request};
use landfall_image::{Error, Result};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);

/// What was heard.
pub enum News {
    Local(Box<Local>),
    Machine(std::result::Result<Box<Machine>, Problem>),
    Protection(std::result::Result<Box<Protection>, Problem>),
    Log(std::result::Result<Vec<String>, Problem>),
    /// A change came to its end: what is to be known of it.
    Done(Done),
    /// The machine goes down, or why it does not.
    Down(Done),
}

/// What came of what was ordered.
pub type Done = std::result::Result<Vec<String>, Problem>;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// To ask for the log.
    Log,
    /// To change something.
    Change(Request),
}

/// The threads.
pub struct Asker {
    pub news: Receiver<News>,
    changes: Sender<Request>,
    downs: Sender<Request>,
    logs: Sender<()>,
}

impl Asker {
    /// Starts them.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(places: &Places) -> Result<Asker> {
        let (tell, news) = channel();
        let (wake, woken) = channel::<()>();
        let (logs, asked) = channel::<()>();
        let (changes, changed) = channel::<Request>();
        let (downs, down) = channel::<Request>();
        repeat("files", places, &tell, None, |places| News::Local(Box::new(places.local())))?;
        repeat("machine", places, &tell, Some(woken), |places| {
            News::Machine(places.machine().map(Box::new).map_err(|error| Problem::from(&error)))
        })?;
        repeat("service", places, &tell, None, |places| {
            News::Protection(places.protection().map(Box::new).map_err(|error| Problem::from(&error)))
        })?;
        let (own, to) = (places.clone(), tell.clone());
        begin("log", move || {
            while asked.recv().is_ok() {
                let lines = own.journal().map_err(|error| Problem::from(&error));
                if to.send(News::Log(lines)).is_err() {
                    return;
                }
            }
        })?;
        let (own, to) = (places.clone(), tell.clone());
        begin("change", move || {
            while let Ok(request) = changed.recv() {
                let done = own.change(&request).map_err(|error| Problem::from(&error));
                // What it has changed is looked at.
                let _ = wake.send(());
                if to.send(News::Done(done)).is_err() {
                    return;
                }
            }
        })?;
        // Not behind a disk that is being made.
        let own = places.clone();
        begin("down", move || {
            while let Ok(request) = down.recv() {
                let done = own.change(&request).map_err(|error| Problem::from(&error));
                if tell.send(News::Down(done)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Asker { news, changes, downs, logs })
    }

    /// Has something done.
    pub fn order(&self, order: Order) {
        // The threads live as long as this does.
        let _ = match order {
            Order::Log => self.logs.send(()).is_ok(),
            Order::Change(request) if request.goes_down() => self.downs.send(request).is_ok(),
            Order::Change(request) => self.changes.send(request).is_ok(),
        };
    }
}

fn begin(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let begun = thread::Builder::new().name(name.to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::io("the console cannot start a thread", error))
}

/// Asks again and again: a while after each answer, or when it is woken.
fn repeat(
    name: &str,
    places: &Places,
    to: &Sender<News>,
    woken: Option<Receiver<()>>,
    ask: impl Fn(&Places) -> News + Send + 'static,
) -> Result<()> {
    let (places, to) = (places.clone(), to.clone());
    begin(name, move || {
        while to.send(ask(&places)).is_ok() {
            let waited = woken.as_ref().map(|woken| woken.recv_timeout(AGAIN));
            if matches!(waited, None | Some(Err(RecvTimeoutError::Disconnected))) {
                thread::sleep(AGAIN);
            }
        }
    })
}
