//! Thirty days of points, one every five seconds, with the usual rules of retention: how many files, how much room and memory, how long
//! the service needs to start and a point to be read. `cargo bench --bench days [-- DAYS]`

#[path = "../service/simulated.rs"]
mod simulated;

use landfall::vault::retention::Retention;

fn main() {
    let days = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(30);
    let dir = simulated::quick_folder();
    println!("day  points  files  MiB on disk  longest upkeep  opened   read     peak memory MiB");
    simulated::simulate(&dir.path().join("vault"), days, 24, &Retention::default(), |after| {
        println!(
            "{:>3}  {:>6}  {:>5}  {:>11}  {:>11.2} s  {:>6.0} ms  {:>6.1} ms  {:>6}",
            after.day,
            after.points,
            after.files,
            after.bytes >> 20,
            after.upkeep.as_secs_f64(),
            after.opened.as_secs_f64() * 1000.0,
            after.read.as_secs_f64() * 1000.0,
            peak_kib() >> 10,
        );
    });
}

/// VmHWM of this process (proc(5)).
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
