//! What a person sees while something runs: bars on a terminal, plain lines elsewhere.

use super::text::say;
use crate::event::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use landfall_image::convert::Progress;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Draws on standard error, so that results can be piped.
pub struct Drawer {
    quiet: bool,
    terminal: bool,
    copy: Mutex<Option<Copy>>,
}

/// A copy under way: a thread that looks at its counters.
struct Copy {
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Drawer {
    /// Draws nothing where `quiet`.
    pub fn new(quiet: bool) -> Self {
        Drawer { quiet, terminal: std::io::stderr().is_terminal(), copy: Mutex::new(None) }
    }

    fn start(&self, disk: String, progress: Progress) {
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let thread = match self.terminal {
            true => std::thread::spawn(move || draw_bar(&disk, &progress, &flag)),
            false => std::thread::spawn(move || print_lines(&disk, &progress, &flag)),
        };
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = Some(Copy { done, thread });
    }

    fn finish(&self) {
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(copy) = copy {
            copy.done.store(true, Ordering::Relaxed);
            copy.thread.thread().unpark();
            // A drawing thread that died has nothing to add.
            let _ = copy.thread.join();
        }
    }
}

impl Observer for Drawer {
    fn event(&self, event: Event) {
        if self.quiet {
            return;
        }
        match event {
            Event::Step(text) => say(&text),
            Event::CopyStarted { disk, progress } => self.start(disk, progress),
            Event::CopyFinished => self.finish(),
        }
    }
}

impl Drop for Drawer {
    fn drop(&mut self) {
        self.finish();
    }
}

fn draw_bar(disk: &str, progress: &Progress, done: &AtomicBool) {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(10));
    let style =
        "  {msg} [{bar:30}] {percent:>3}% {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(disk.to_owned());
    while !done.load(Ordering::Relaxed) {
        let now = progress.snapshot();
        // Nothing is known before the first look at the disk's map.
        if now.size.0 > 0 {
            bar.set_length(now.total.0);
            bar.set_position(now.read.0);
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    bar.finish_and_clear();
    summary(disk, progress, bar.elapsed());
}

fn print_lines(disk: &str, progress: &Progress, done: &AtomicBool) {
    const EVERY: Duration = Duration::from_secs(10);
    let started = Instant::now();
    let mut last = started;
    while !done.load(Ordering::Relaxed) {
        std::thread::park_timeout(EVERY);
        if last.elapsed() >= EVERY {
            let now = progress.snapshot();
            say(&format!("  {disk}: {:.0}% ({} read)", now.fraction() * 100.0, now.read));
            last = Instant::now();
        }
    }
    summary(disk, progress, started.elapsed());
}

fn summary(disk: &str, progress: &Progress, took: Duration) {
    let now = progress.snapshot();
    // What is only read (for a digest, for a comparison) is copied nowhere.
    let data = if now.copied.0 > 0 { now.copied } else { now.read };
    say(&format!("  {disk}: {data} of data on a disk of {}, in {:.1} s", now.size, took.as_secs_f64()));
}
