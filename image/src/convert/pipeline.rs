//! Work done in parallel whose results are taken in order, with a bound on how much is under way.
//!
//! The calling thread produces items, `jobs` threads work on them, and the results reach `take` one at a time in
//! the order of the items. Whichever worker completes the next result also takes it, and all that follow it: no
//! thread is kept for that. The first error stops everything and is the one returned; so does a cancellation.

use super::Cancel;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that are known but not begun. Their buffers are not allocated yet.
const QUEUE: usize = 16_384;

/// How much happens at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Width {
    /// Threads; at least 1.
    pub jobs: usize,
    /// Items begun and not yet taken; at least 1. Bounds the memory.
    pub in_flight: usize,
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

struct State<I, T, K> {
    queue: VecDeque<I>,
    /// Number of the item at the head of the queue.
    first_queued: u64,
    no_more: bool,
    done: BTreeMap<u64, T>,
    next_to_take: u64,
    /// The taker, absent while a worker uses it.
    taker: Option<K>,
    error: Option<Error>,
}

struct Shared<I, T, K> {
    state: Mutex<State<I, T, K>>,
    /// Failed, or `take` wants no more. Set while `state` is locked, so that nobody falls asleep over it.
    ended: AtomicBool,
    work: Condvar,
    room: Condvar,
}

impl<I, T, K> Shared<I, T, K> {
    fn lock(&self) -> MutexGuard<'_, State<I, T, K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn end(&self, state: MutexGuard<'_, State<I, T, K>>) {
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
struct Alarm<'a, I, T, K>(&'a Shared<I, T, K>);

impl<I, T, K> Drop for Alarm<'_, I, T, K> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::interrupted());
        }
    }
}

/// Runs `work` on every item and `take` on every result, in order, until all is taken or `take` says `Break`.
pub(super) fn run<I, T, W, K>(
    items: impl Iterator<Item = Result<I>>,
    width: Width,
    cancel: &Cancel,
    work: W,
    take: K,
) -> Result<()>
where
    I: Send,
    T: Send,
    W: Fn(I, &Stop<'_>) -> Result<T> + Sync,
    K: FnMut(T) -> Result<ControlFlow<()>> + Send,
{
    let shared = Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            first_queued: 0,
            no_more: false,
            done: BTreeMap::new(),
            next_to_take: 0,
            taker: Some(take),
            error: None,
        }),
        ended: AtomicBool::new(false),
        work: Condvar::new(),
        room: Condvar::new(),
    };
    let in_flight = width.in_flight.max(1) as u64;
    std::thread::scope(|scope| {
        for n in 0..width.jobs.max(1) {
            let thread = std::thread::Builder::new().name(format!("convert-{n}"));
            let (shared, work) = (&shared, &work);
            let spawned = thread.spawn_scoped(scope, move || {
                let _alarm = Alarm(shared);
                if let Err(error) = worker(shared, in_flight, cancel, work) {
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
fn feed<I, T, K>(shared: &Shared<I, T, K>, items: impl Iterator<Item = Result<I>>) {
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

fn worker<I, T, W, K>(shared: &Shared<I, T, K>, in_flight: u64, cancel: &Cancel, work: &W) -> Result<()>
where
    W: Fn(I, &Stop<'_>) -> Result<T>,
    K: FnMut(T) -> Result<ControlFlow<()>>,
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
            // The worker that holds the next result to be taken never waits here, so the others do not wait forever.
            if state.first_queued < state.next_to_take + in_flight
                && let Some(item) = state.queue.pop_front()
            {
                state.first_queued += 1;
                break (state.first_queued - 1, item);
            }
            if state.no_more && state.queue.is_empty() {
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
            if taken.is_break() {
                state.taker = Some(taker);
                shared.end(state);
                return Ok(());
            }
            shared.work.notify_all();
        }
        state.taker = Some(taker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use std::sync::atomic::AtomicUsize;

    const WIDTH: Width = Width { jobs: 8, in_flight: 16 };

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
                Ok(ControlFlow::Continue(()))
            },
        )
        .unwrap();
        assert!(taken.iter().copied().eq(0..2000));
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
                |_| Ok(ControlFlow::Continue(())),
            );
            assert_eq!(result.err().unwrap().says(), format!("item {at}"));
            assert!(worked.load(Ordering::Relaxed) < usize::try_from(at).unwrap() + 2 * WIDTH.in_flight);
        }
        // The same where the producer or the taker fails.
        let items = (0..100u64).map(|n| if n == 50 { Err(Error::corrupt("produce")) } else { Ok(n) });
        let go = |_: u64| Ok(ControlFlow::Continue(()));
        let error = run(items, WIDTH, &Cancel::default(), |n, _| Ok(n), go).err().unwrap();
        assert_eq!(error.says(), "produce");
        let refuse =
            |n: u64| if n == 50 { Err(Error::corrupt("take")) } else { Ok(ControlFlow::Continue(())) };
        let error =
            run((0..u64::MAX).map(Ok), WIDTH, &Cancel::default(), |n, _| Ok(n), refuse).err().unwrap();
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
                Ok(if n == 1000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            },
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
        run((0..u64::MAX).map(Ok), WIDTH, &Cancel::default(), wait_for_the_end, |n| {
            last = n;
            Ok(if n == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .unwrap();
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
            |_| Ok(ControlFlow::Continue(())),
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
                |_| Ok(ControlFlow::Continue(())),
            )
        });
        assert!(caught.is_err());
    }
}
