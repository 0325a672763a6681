//! Work done in parallel whose results are taken in order, with a bound on how much is under way.
//!
//! ```text
//! items -> work (parallel) -> take (in order, one at a time) -> end (parallel, any order)
//! ```
//!
//! The calling thread produces items, `jobs` threads work on them, the results reach `take` one at a time in the
//! order of the items, and what it makes of them is ended by the threads again. Whichever worker completes the next
//! result also takes it, and all that follow it: no thread is kept for that. The first error stops everything and is
//! the one returned; so does a cancellation.

use super::Cancel;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that are known but not begun. Their buffers are not allocated yet.
const QUEUE: usize = 16_384;

/// How much happens at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Width {
    /// Threads; at least 1.
    pub jobs: usize,
    /// Items begun and not yet ended; at least 1. Bounds the memory.
    pub in_flight: usize,
    /// Threads that end items at a time; at least 1.
    pub ending: usize,
}

/// What `take` makes of a result.
pub(super) enum Taken<E> {
    /// Nothing is left to do.
    Done,
    /// A worker has to end it.
    ToEnd(E),
    /// All that follows is of no interest.
    Enough,
}

/// Lets long work notice that it is no longer wanted.
pub(super) struct Stop<'a> {
    ended: &'a AtomicBool,
    cancel: &'a Cancel,
}

impl Stop<'_> {
    /// An error where the run was cancelled or has failed elsewhere.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() || self.ended.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        Ok(())
    }
}

struct State<I, T, E, K> {
    queue: VecDeque<I>,
    /// Number of the item at the head of the queue.
    first_queued: u64,
    no_more: bool,
    /// Items begun and not yet ended.
    under_way: usize,
    done: BTreeMap<u64, T>,
    next_to_take: u64,
    /// Taken, and to be ended.
    to_end: VecDeque<E>,
    /// Threads that end one now.
    ending: usize,
    /// The taker, absent while a worker uses it.
    taker: Option<K>,
    error: Option<Error>,
}

struct Shared<I, T, E, K> {
    state: Mutex<State<I, T, E, K>>,
    /// Failed, or `take` wants no more. Set while `state` is locked, so that nobody falls asleep over it.
    ended: AtomicBool,
    work: Condvar,
    room: Condvar,
}

impl<I, T, E, K> Shared<I, T, E, K> {
    fn lock(&self) -> MutexGuard<'_, State<I, T, E, K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn end(&self, state: MutexGuard<'_, State<I, T, E, K>>) {
        self.ended.store(true, Ordering::Relaxed);
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
    }

    /// The first error counts. One that comes after the end follows from it: whoever is stopped on the way says so.
    fn fail(&self, error: Error) {
        let mut state = self.lock();
        if !self.ended() {
            state.error = Some(error);
        }
        self.end(state);
    }
}

/// Wakes the others where a worker panics, so that the panic is reported instead of waited for.
struct Alarm<'a, I, T, E, K>(&'a Shared<I, T, E, K>);

impl<I, T, E, K> Drop for Alarm<'_, I, T, E, K> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::interrupted());
        }
    }
}

/// Runs `work` on every item, `take` on every result, in order, and `end` on what that makes of it, until all is
/// done or `take` says `Enough`.
pub(super) fn run<I, T, E, W, K, Z>(
    items: impl Iterator<Item = Result<I>>,
    width: Width,
    cancel: &Cancel,
    work: W,
    take: K,
    end: Z,
) -> Result<()>
where
    I: Send,
    T: Send,
    E: Send,
    W: Fn(I, &Stop<'_>) -> Result<T> + Sync,
    K: FnMut(T) -> Result<Taken<E>> + Send,
    Z: Fn(E) -> Result<()> + Sync,
{
    let shared = Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            first_queued: 0,
            no_more: false,
            under_way: 0,
            done: BTreeMap::new(),
            next_to_take: 0,
            to_end: VecDeque::new(),
            ending: 0,
            taker: Some(take),
            error: None,
        }),
        ended: AtomicBool::new(false),
        work: Condvar::new(),
        room: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for n in 0..width.jobs.max(1) {
            let thread = std::thread::Builder::new().name(format!("convert-{n}"));
            let (shared, work, end) = (&shared, &work, &end);
            let spawned = thread.spawn_scoped(scope, move || {
                let _alarm = Alarm(shared);
                if let Err(error) = worker(shared, width, cancel, work, end) {
                    shared.fail(error);
                }
            });
            if let Err(error) = spawned {
                // Fewer threads than wanted will do, none will not.
                if n == 0 {
                    shared.fail(Error::io("cannot start a thread", error));
                }
                break;
            }
        }
        let _alarm = Alarm(&shared);
        feed(&shared, items);
    });
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.error.map_or(Ok(()), Err)
}

/// Puts the items into the queue as there is room.
fn feed<I, T, E, K>(shared: &Shared<I, T, E, K>, items: impl Iterator<Item = Result<I>>) {
    for item in items {
        let item = match item {
            Ok(item) => item,
            Err(error) => return shared.fail(error),
        };
        let mut state = shared.lock();
        while state.queue.len() >= QUEUE && !shared.ended() {
            state = shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if shared.ended() {
            return;
        }
        state.queue.push_back(item);
        drop(state);
        shared.work.notify_one();
    }
    shared.lock().no_more = true;
    shared.work.notify_all();
}

fn worker<I, T, E, W, K, Z>(
    shared: &Shared<I, T, E, K>,
    width: Width,
    cancel: &Cancel,
    work: &W,
    end: &Z,
) -> Result<()>
where
    W: Fn(I, &Stop<'_>) -> Result<T>,
    K: FnMut(T) -> Result<Taken<E>>,
    Z: Fn(E) -> Result<()>,
{
    let stop = Stop { ended: &shared.ended, cancel };
    loop {
        if cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        let mut state = shared.lock();
        let (number, item) = loop {
            if shared.ended() {
                return Ok(());
            }
            // What is taken goes first: it is still in the processor's cache, and holds memory.
            if state.ending < width.ending.max(1)
                && let Some(taken) = state.to_end.pop_front()
            {
                state.ending += 1;
                drop(state);
                end(taken)?;
                state = shared.lock();
                state.ending -= 1;
                state.under_way -= 1;
                shared.work.notify_one();
                continue;
            }
            // Whoever works on the next result to be taken never waits here, so the others do not wait forever.
            if state.under_way < width.in_flight.max(1)
                && let Some(item) = state.queue.pop_front()
            {
                state.first_queued += 1;
                state.under_way += 1;
                break (state.first_queued - 1, item);
            }
            if state.no_more && state.queue.is_empty() && state.under_way == 0 {
                shared.work.notify_all();
                return Ok(());
            }
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        if state.queue.len() < QUEUE {
            shared.room.notify_one();
        }
        drop(state);
        let result = work(item, &stop)?;
        let mut state = shared.lock();
        state.done.insert(number, result);
        // Take what is due, unless another worker is doing so; it looks again before it gives the taker back.
        let Some(mut taker) = state.taker.take() else { continue };
        while !shared.ended() {
            let next = state.next_to_take;
            let Some(result) = state.done.remove(&next) else { break };
            drop(state);
            let taken = taker(result)?;
            state = shared.lock();
            state.next_to_take += 1;
            match taken {
                Taken::Done => state.under_way -= 1,
                Taken::ToEnd(taken) => state.to_end.push_back(taken),
                Taken::Enough => {
                    state.taker = Some(taker);
                    shared.end(state);
                    return Ok(());
                }
            }
            shared.work.notify_one();
        }
        state.taker = Some(taker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use std::sync::atomic::AtomicUsize;

    const WIDTH: Width = Width { jobs: 8, in_flight: 16, ending: 3 };

    fn nothing(_: ()) -> Result<()> {
        Ok(())
    }

    /// Uneven work, so that results become ready out of order.
    fn busy(n: u64) {
        for _ in 0..n * 7919 % 13 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn results_come_in_order_and_few_are_in_flight() {
        let in_flight = AtomicUsize::new(0);
        let mut taken = Vec::new();
        run(
            (0..2000u64).map(Ok),
            WIDTH,
            &Cancel::default(),
            |n, _| {
                assert!(in_flight.fetch_add(1, Ordering::SeqCst) < WIDTH.in_flight);
                busy(n);
                Ok(n)
            },
            |n| {
                in_flight.fetch_sub(1, Ordering::SeqCst);
                taken.push(n);
                Ok(Taken::Done)
            },
            nothing,
        )
        .unwrap();
        assert!(taken.iter().copied().eq(0..2000));
    }

    /// What is taken is ended by whoever has time, all of it, and counts as under way until then.
    #[test]
    fn what_is_taken_is_ended_in_any_order() {
        let under_way = AtomicUsize::new(0);
        let ended = Mutex::new(vec![false; 2000]);
        let ending = AtomicUsize::new(0);
        run(
            (0..2000u64).map(Ok),
            WIDTH,
            &Cancel::default(),
            |n, _| {
                assert!(under_way.fetch_add(1, Ordering::SeqCst) < WIDTH.in_flight);
                Ok(n)
            },
            |n| {
                Ok(if n % 3 == 0 {
                    Taken::ToEnd(n)
                } else {
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    Taken::Done
                })
            },
            |n| {
                assert!(ending.fetch_add(1, Ordering::SeqCst) < WIDTH.ending);
                busy(n);
                under_way.fetch_sub(1, Ordering::SeqCst);
                ending.fetch_sub(1, Ordering::SeqCst);
                let was = std::mem::replace(&mut ended.lock().unwrap()[usize::try_from(n).unwrap()], true);
                assert!(!was, "ended twice");
                Ok(())
            },
        )
        .unwrap();
        assert!(ended.into_inner().unwrap().iter().enumerate().all(|(n, &ended)| ended == (n % 3 == 0)));
        let failing = run(
            (0..2000u64).map(Ok),
            WIDTH,
            &Cancel::default(),
            |n, _| Ok(n),
            |n| Ok(Taken::ToEnd(n)),
            |n| if n == 700 { Err(Error::corrupt("end")) } else { Ok(()) },
        );
        assert_eq!(failing.unwrap_err().says(), "end");
    }

    #[test]
    fn the_first_error_stops_all_and_wins() {
        for at in [0u64, 1, 77, 4999] {
            let worked = AtomicUsize::new(0);
            let result = run(
                (0..100_000u64).map(Ok),
                WIDTH,
                &Cancel::default(),
                |n, _| {
                    worked.fetch_add(1, Ordering::Relaxed);
                    if n == at { Err(Error::corrupt(format!("item {n}"))) } else { Ok(n) }
                },
                |_| Ok(Taken::Done),
                nothing,
            );
            assert_eq!(result.err().unwrap().says(), format!("item {at}"));
            assert!(worked.load(Ordering::Relaxed) < usize::try_from(at).unwrap() + 2 * WIDTH.in_flight);
        }
        // The same where the producer or the taker fails.
        let items = (0..100u64).map(|n| if n == 50 { Err(Error::corrupt("produce")) } else { Ok(n) });
        let go = |_: u64| Ok(Taken::Done);
        let error = run(items, WIDTH, &Cancel::default(), |n, _| Ok(n), go, nothing).err().unwrap();
        assert_eq!(error.says(), "produce");
        let refuse = |n: u64| if n == 50 { Err(Error::corrupt("take")) } else { Ok(Taken::Done) };
        let error = run((0..u64::MAX).map(Ok), WIDTH, &Cancel::default(), |n, _| Ok(n), refuse, nothing)
            .err()
            .unwrap();
        assert_eq!(error.says(), "take");
    }

    #[test]
    fn enough_is_enough() {
        let mut last = 0;
        run(
            (0..u64::MAX).map(Ok),
            WIDTH,
            &Cancel::default(),
            |n, _| Ok(n),
            |n| {
                last = n;
                Ok(if n == 1000 { Taken::Enough } else { Taken::Done })
            },
            nothing,
        )
        .unwrap();
        assert_eq!(last, 1000);
    }

    /// Work that notices the end on its way must not turn a result into an error.
    #[test]
    fn to_be_stopped_after_enough_is_no_error() {
        let mut last = 0;
        let wait_for_the_end = |n: u64, stop: &Stop<'_>| {
            while n > 10 && stop.check().is_ok() {
                std::thread::yield_now();
            }
            if n > 10 {
                stop.check()?
            }
            Ok(n)
        };
        let until_10 = |n| {
            last = n;
            Ok(if n == 10 { Taken::Enough } else { Taken::Done })
        };
        run((0..u64::MAX).map(Ok), WIDTH, &Cancel::default(), wait_for_the_end, until_10, nothing).unwrap();
        assert_eq!(last, 10);
    }

    #[test]
    fn a_cancelled_run_ends() {
        let cancel = Cancel::default();
        let result = run(
            (0..u64::MAX).map(Ok),
            WIDTH,
            &cancel,
            |n, _| {
                if n == 500 {
                    cancel.cancel();
                }
                Ok(n)
            },
            |_| Ok(Taken::Done),
            nothing,
        );
        assert_eq!(result.err().unwrap().kind(), Kind::Interrupted);
    }

    #[test]
    fn a_panic_is_passed_on_and_not_waited_for() {
        let caught = std::panic::catch_unwind(|| {
            run(
                (0..u64::MAX).map(Ok),
                WIDTH,
                &Cancel::default(),
                |n, _| {
                    assert_ne!(n, 300, "a defect in a reader");
                    Ok(n)
                },
                |_| Ok(Taken::Done),
                nothing,
            )
        });
        assert!(caught.is_err());
    }
}
