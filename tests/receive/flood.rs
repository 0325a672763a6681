//! 1,500 exports and as many clients that send and ask as fast as they can, some without ever listening: the receiver
//! stays under 1 GiB, and a client that behaves is served meanwhile.
//!
//! The receiver runs in a process of its own, so that its memory can be told from that of the clients.

use super::hostile::{Raw, option};
use super::*;
use landfall_image::nbd::protocol::*;
use landfall_image::{Extent, ExtentKind};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const EXPORTS: usize = 1500;
const SIZE: u64 = 1 << 30;
const AT_MOST_KIB: u64 = 1 << 20;
const PLACE: &str = "LANDFALL_TEST_FLOOD";

/// Takes what it is given, and no longer than a file would.
struct Nothing;

impl Disk for Nothing {
    fn size(&self) -> Bytes {
        Bytes(SIZE)
    }
    fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<Extent>> {
        Ok(vec![Extent { range, kind: ExtentKind::Data }])
    }
    fn read_at(&self, _: GuestOffset, buf: &mut [u8]) -> Result<()> {
        buf.fill(1);
        Ok(())
    }
}

impl DiskMut for Nothing {
    fn write_at(&self, _: GuestOffset, data: &[u8]) -> Result<()> {
        std::thread::sleep(Duration::from_micros(20 + data.len() as u64 / 1000));
        Ok(())
    }
    fn zero_at(&self, _: GuestRange) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// The process that is flooded: serves until its input ends, then says how much memory it took.
#[test]
#[ignore = "the other side of the_many_and_the_greedy_stay_within_a_gibibyte"]
fn flooded() {
    let Some(socket) = std::env::var_os(PLACE) else { return };
    let running = Running::with(Limits::default(), |_| vec![Listen::Unix(socket.into())]);
    let disk: Arc<dyn DiskMut> = Arc::new(Nothing);
    (0..EXPORTS).for_each(|n| running.add(&format!("vm{n}/sda"), disk.clone(), false));
    println!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    let stats = running.monitor.read();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.split_whitespace().next().unwrap();
    println!("peak {peak} {} {}", stats.connections, stats.total.requests);
    running.stop();
}

async fn greedy(socket: PathBuf, number: usize, there: &AtomicUsize) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(&socket).await?;
    stream.read_exact(&mut [0; 18]).await?;
    let name = format!("vm{number}/sda");
    stream.write_all(&[&3u32.to_be_bytes()[..], &option(OPT_EXPORT_NAME, name.as_bytes())].concat()).await?;
    stream.read_exact(&mut [0; 10]).await?;
    there.fetch_add(1, SeqCst);
    let head = |command, len| Request { flags: 0, command, cookie: 1, offset: 0, len }.to_bytes();
    let (listens, bytes) = match number % 5 {
        0 => (true, [&head(CMD_WRITE, 32 << 20)[..], &vec![1; 1 << 20].repeat(32)].concat()),
        1 => (true, [&head(CMD_WRITE, 4096)[..], &[1; 4096]].concat().repeat(64)),
        2 => (false, head(CMD_READ, 32 << 20).repeat(64)),
        3 => (false, head(CMD_FLUSH, 0).repeat(4096)),
        _ => (true, [&head(CMD_WRITE, 200 << 10)[..], &[1; 200 << 10]].concat()),
    };
    let (mut from, mut to) = stream.into_split();
    let ears = tokio::spawn(async move {
        let mut sink = vec![0; 64 << 10];
        while listens && from.read(&mut sink).await.is_ok_and(|len| len > 0) {}
        from
    });
    while to.write_all(&bytes).await.is_ok() {}
    drop(ears.await);
    Ok(())
}

/// Every connection is an open file, here and there.
fn files_suffice() -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    limit.maximum.is_none_or(|most| most >= 2 * EXPORTS as u64)
}

#[test]
fn the_many_and_the_greedy_stay_within_a_gibibyte() {
    if !files_suffice() {
        eprintln!("SKIPPED: the flood: too few open files are allowed here (ulimit -Hn)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "receive::flood::flooded", "--ignored", "--nocapture"])
        .env(PLACE, &socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let there = Arc::new(AtomicUsize::new(0));
    for number in 1..EXPORTS {
        let (socket, there) = (socket.clone(), there.clone());
        // Turned away while too many are greeting: once more.
        runtime.spawn(async move {
            while greedy(socket.clone(), number, &there).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    let begin = Instant::now();
    while there.load(SeqCst) < EXPORTS - 1 {
        assert!(begin.elapsed() < Duration::from_secs(120), "{there:?} clients were let in");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut slowest = Duration::ZERO;
    let mut answered = 0;
    let begin = Instant::now();
    let mut good = Raw::start(&socket, "vm0/sda");
    // For a while, and on a machine that is busy with this long enough for some answers.
    while begin.elapsed() < Duration::from_secs(8) || answered < 5 {
        let asked = Instant::now();
        good.write(answered, 0, &[1; 4096]);
        assert_eq!(good.reply(), (answered, 0));
        slowest = slowest.max(asked.elapsed());
        answered += 1;
    }
    drop(child.stdin.take());
    // All of it: a test that cannot print fails.
    let said: Vec<String> = lines.map_while(|line| line.ok()).collect();
    let said = said.iter().find(|line| line.contains("peak ")).unwrap();
    runtime.shutdown_background();
    let _ = child.wait();
    let mut numbers = said.split("peak ").nth(1).unwrap().split(' ').map(|n| n.parse::<u64>().unwrap());
    let [peak_kib, connections, requests] = [(); 3].map(|()| numbers.next().unwrap());
    eprintln!(
        "flood: {connections} connections, {requests} requests, peak {peak_kib} KiB; one that behaves: {answered}, slowest {slowest:?}"
    );
    assert!(peak_kib < AT_MOST_KIB, "{peak_kib} KiB");
    assert!(slowest < Duration::from_secs(20), "{answered} answers, slowest {slowest:?}");
}
