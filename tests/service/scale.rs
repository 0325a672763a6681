//! Many disks at once: all of a machine's have one moment in each point, and all of a site's fit into memory.

use super::*;
use crate::receive::nbdsh::python;
use serde_json::Value;

const DISKS: usize = 60;

/// Disk and block of write `n`, from 1.
fn place(n: u64) -> (usize, u64) {
    let drawn = n.wrapping_mul(2_654_435_761) >> 7;
    (usize::try_from(drawn % DISKS as u64).unwrap(), drawn / DISKS as u64 % BLOCKS)
}

/// What the blocks of all disks say after `count` writes.
fn model_of_many(count: u64) -> Vec<Vec<u64>> {
    let mut disks = vec![vec![0; usize::try_from(BLOCKS).unwrap()]; DISKS];
    for n in 1..=count {
        let (disk, block) = place(n);
        disks[disk][usize::try_from(block).unwrap()] = n;
    }
    disks
}

/// One writer who waits for each answer, over sixty connections; the service is killed once meanwhile.
#[test]
fn sixty_disks_are_of_one_moment_in_every_point() {
    let Some(python) = python() else { return };
    let mut site = Site::new(
        "[protect]\ncheckpoint = \"1s\"\nretention = \"1h every 1s\"\nin_sync = \"flush\"\n[upkeep]\nevery = \"1s\"\nlow = 1\nscarce = 1\n",
    );
    let names: Vec<String> = (0..DISKS).map(|disk| format!("d{disk}")).collect();
    let disks: Vec<&str> = names.iter().map(String::as_str).collect();
    site.protect("big", &disks, BLOCK * BLOCKS);
    let (progress, enough) = (site.path("progress"), site.path("enough"));
    let text = format!(
        r"
import nbd, os, struct, time
done = os.open({:?}, os.O_CREAT | os.O_WRONLY)
handles, n = None, 0
while not os.path.exists({:?}):
    n += 1
    drawn = (n * 2654435761 & (1 << 64) - 1) >> 7
    while True:
        try:
            if handles is None:
                handles = []
                for disk in range({DISKS}):
                    handle = nbd.NBD()
                    handle.connect_uri({:?} % disk)
                    handles.append(handle)
                    # The first write of a client puts a disk into doubt, its flush takes the doubt away.
                    handle.pwrite(handle.pread({BLOCK}, 0), 0)
                    handle.flush()
            handles[drawn % {DISKS}].pwrite(struct.pack('>Q', n) * {}, drawn // {DISKS} % {BLOCKS} * {BLOCK})
            break
        except nbd.Error as error:
            handles = None
            time.sleep(0.05)
    os.pwrite(done, struct.pack('>Q', n), 0)
",
        progress.display(),
        enough.display(),
        site.uri("big/d%d"),
        BLOCK / 8,
    );
    let script = site.path("writer.py");
    std::fs::write(&script, text).unwrap();
    site.start();
    let mut client = Writer::start(python, &script);
    let reach = |count: u64| {
        let begin = Instant::now();
        while acknowledged(&progress) < count {
            assert!(begin.elapsed() < Duration::from_secs(120), "{} writes", acknowledged(&progress));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    reach(1500);
    site.kill();
    site.start();
    reach(3000);
    std::thread::sleep(Duration::from_secs(2));
    std::fs::write(&enough, "").unwrap();
    client.ends();
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"big".parse().unwrap()).unwrap();
    let points = machine.points().unwrap();
    let (mut last, mut looked_at) = (0, 0);
    for point in &points {
        let state = machine.at(point.sequence).unwrap();
        let found: Vec<Vec<u64>> = disks.iter().map(|disk| numbers(&of_point(&state, disk))).collect();
        let count = found.iter().flatten().copied().max().unwrap();
        assert!(found == model_of_many(count), "point {} is no prefix of {count} writes", point.sequence);
        assert!(count >= last);
        (last, looked_at) = (count, looked_at + 1);
    }
    assert_eq!(last, acknowledged(&progress), "the last point holds everything");
    assert!(looked_at > 2, "{looked_at} points");
}

/// 25 machines of sixty disks, all written to. How much memory, how old the newest states are: printed, and bounded as it was promised.
#[test]
fn fifteen_hundred_disks_are_received_in_less_than_a_gibibyte() {
    const MACHINES: usize = 25;
    let Some(python) = python() else { return };
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if files.is_some_and(|files| files < 4096) {
        eprintln!("SKIPPED: 1,500 disks need more open files than {files:?} (ulimit -Hn)");
        return;
    }
    let mut site = Site::new("[upkeep]\nlow = 1\nscarce = 1\n");
    for machine in 0..MACHINES {
        let disks: Vec<String> = (0..DISKS).map(|disk| format!("d{disk}")).collect();
        let disks: Vec<&str> = disks.iter().map(String::as_str).collect();
        site.protect(&format!("m{machine}"), &disks, 64 << 20);
    }
    site.start();
    let (ready, enough) = (site.path("ready"), site.path("enough"));
    let text = format!(
        r"
import nbd, os, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
handles = []
for machine in range({MACHINES}):
    for disk in range({DISKS}):
        handle = nbd.NBD()
        handle.connect_uri({:?} % (machine, disk))
        handle.pwrite(os.urandom(65536), 65536 * (disk * 7 % 1000))
        handles.append(handle)
for handle in handles:
    handle.flush()
open({:?}, 'w').close()
n = 0
while not os.path.exists({:?}):
    n += 1
    for i, handle in enumerate(handles):
        handle.pwrite(os.urandom(16384), 16384 * ((i * 11 + n * 17) % 4000))
",
        site.uri("m%d/d%d"),
        ready.display(),
        enough.display(),
    );
    let script = site.path("writer.py");
    std::fs::write(&script, text).unwrap();
    let mut client = Writer::start(python, &script);
    let begin = Instant::now();
    while !ready.exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "{}", site.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let document = |site: &Site| -> Value {
        let output = super::api::landfall(&site.path("sockets/api.sock"), &["--json", "status"]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let is_protected = |status: &Value| {
        status["machines"].as_array().unwrap().iter().all(|machine| machine["protection"] == "protected")
    };
    let begin = Instant::now();
    while !is_protected(&document(&site)) {
        assert!(begin.elapsed() < Duration::from_secs(120), "{}", document(&site));
        std::thread::sleep(Duration::from_millis(500));
    }
    let mut oldest: f64 = 0.0;
    for _ in 0..20 {
        let status = document(&site);
        let ages =
            status["machines"].as_array().unwrap().iter().filter_map(|one| one["rpo"]["actual"].as_f64());
        oldest = ages.fold(oldest, f64::max);
        std::thread::sleep(Duration::from_millis(500));
    }
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", site.child.as_ref().unwrap().id())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("1,500 disks: {} MiB at most, the newest states {oldest:.1} s old at most", kib >> 10);
    std::fs::write(&enough, "").unwrap();
    client.ends();
    let begin = Instant::now();
    site.kill();
    site.start();
    println!("started again in {:.1} s", begin.elapsed().as_secs_f64());
    site.stop();
    assert!(kib < 1 << 20, "{peak}");
    // On a machine that does nothing else it is five; others test beside this.
    assert!(oldest < 15.0, "{oldest} s");
}
