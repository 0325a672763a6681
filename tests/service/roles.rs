//! Two of a machine must not become one: who may write to it, and when it is a state.

use super::api::{err, landfall};
use super::*;
use crate::receive::nbdsh::python;
use serde_json::Value;

/// Runs a script with libnbd: `connect(disk)` gives a handle of web01's disk.
fn script(site: &Site, text: &str) -> std::process::Output {
    let path = site.path("script.py");
    let uri = site.uri("web01/");
    let helpers = format!(
        "import nbd, sys, time\ndef connect(disk):\n    h = nbd.NBD()\n    h.connect_uri({:?}.replace('web01/', 'web01/' + disk))\n    return h\n",
        uri
    );
    std::fs::write(&path, format!("{helpers}{text}")).unwrap();
    python().unwrap().arg(&path).output().unwrap()
}

/// A service with a machine of one disk; nothing where libnbd is missing.
fn site() -> Option<Site> {
    python()?;
    let mut site =
        Site::new("[protect]\ncheckpoint = \"1s\"\nin_sync = \"flush\"\n[upkeep]\nlow = 1\nscarce = 1\n");
    site.protect("web01", &["sda"], 1 << 20);
    site.start();
    Some(site)
}

fn machine(site: &Site) -> Value {
    site.document(&["status"])["machines"][0].clone()
}

fn alarms(site: &Site) -> String {
    super::api::out(&landfall(&site.path("sockets/api.sock"), &["--json", "alarms"]))
}

#[test]
fn nothing_is_taken_of_the_source_of_a_machine_that_was_promoted() {
    let Some(mut site) = site() else { return };
    // The source writes, and is still there when the machine is promoted on the other side of a network that is cut in two.
    let mut client = {
        let path = site.path("source.py");
        let text = format!(
            "import nbd, time\nh = nbd.NBD()\nh.connect_uri({:?})\nh.pwrite(b'a' * 4096, 0)\nh.flush()\nopen({:?}, 'w').close()\nwhile True:\n    time.sleep(0.05)\n    try:\n        h.pwrite(b'a' * 4096, 0)\n    except nbd.Error as error:\n        open({:?}, 'w').write(str(error.errno))\n        break\n",
            site.uri("web01/sda"),
            site.path("ready"),
            site.path("refused"),
        );
        std::fs::write(&path, text).unwrap();
        Writer::start(python().unwrap(), &path)
    };
    let wait = |what: &str, is_so: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}\n{}", site.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    wait("the source writes", &|| site.path("ready").exists());
    wait("it has a point", &|| machine(&site)["points"].as_u64() > Some(0));
    // Nobody recovers it in earnest by mistake meanwhile.
    let live = landfall(
        &site.path("sockets/api.sock"),
        &["recover", "web01", "--mode", "live", "-o", site.path("out").to_str().unwrap()],
    );
    assert_eq!(live.status.code(), Some(1), "{}", err(&live));
    assert!(err(&live).contains("two of it would") && err(&live).contains("--source-runs"), "{}", err(&live));
    assert_eq!(machine(&site)["role"]["epoch"], 1);
    let point = site.document(&["points", "list", "web01"])["points"][0]["number"].as_u64().unwrap();
    let before = site.document(&["points", "list", "web01"])["points"].as_array().unwrap().len();
    let promote = serde_json::json!({ "role": "promoted", "point": point, "holder": "/recovered/web01" });
    let shown = site.put("/v1/machines/web01/role", &promote);
    assert_eq!(
        (&shown["machine"]["role"]["epoch"], &shown["machine"]["protection"]),
        (&2.into(), &"at-risk".into())
    );
    // What is connected is refused, and what comes anew, and it is told.
    wait("the source is refused", &|| site.path("refused").exists());
    client.ends();
    let again =
        script(&site, "try:\n    connect('sda')\nexcept nbd.Error as error:\n    sys.exit(str(error))\n");
    // libnbd keeps the service's words to itself; QEMU shows them.
    assert!(!again.status.success() && err(&again).contains("policy"), "{}", err(&again));
    wait("it is told", &|| alarms(&site).contains("source-is-back"));
    assert!(
        !alarms(&site).contains("rpo-missed") && !alarms(&site).contains("stream-gone"),
        "{}",
        alarms(&site)
    );
    let diff = site.path("a.diff");
    std::fs::write(&diff, b"rbd diff v1\nt\x02\0\0\0s1s\0\0\x10\0\0\0\0\0e").unwrap();
    let refused = landfall(
        &site.path("sockets/api.sock"),
        &["receive", "rbd", "web01/sda", diff.to_str().unwrap(), "--replace"],
    );
    assert!(err(&refused).contains("was promoted"), "{}", err(&refused));
    let after = site.document(&["points", "list", "web01"])["points"].as_array().unwrap().len();
    assert!(after <= before + 2, "{before} points, then {after}");
    // Said once more it is the same; it outlives the service.
    assert_eq!(site.put("/v1/machines/web01/role", &promote)["machine"]["role"]["epoch"], 2);
    site.kill();
    site.start();
    assert_eq!(machine(&site)["role"]["holder"], "/recovered/web01");
    let again =
        script(&site, "try:\n    connect('sda')\nexcept nbd.Error as error:\n    sys.exit(str(error))\n");
    assert!(!again.status.success());
    // Only who says so makes a replica of it again, and then its copy is to be complete before it counts.
    site.verb(&["protect", "web01", "--resume"]);
    assert_eq!(machine(&site)["role"]["epoch"], 3);
    let back = script(&site, "h = connect('sda')\nh.pwrite(b'b' * 4096, 0)\nh.flush()\nh.shutdown()\n");
    assert!(back.status.success(), "{}", err(&back));
    site.stop();
}

/// The machine was started elsewhere while nobody has missed the old connection yet: what both wrote is no state before the new copy is complete.
#[test]
fn a_second_writer_puts_the_disk_into_doubt_until_it_says_that_it_is_done() {
    let Some(mut site) = site() else { return };
    let done = script(
        &site,
        "import subprocess
old = connect('sda')
old.pwrite(b'a' * 4096, 0)
old.flush()
time.sleep(1.5)
# A process of its own: it is told apart by that on a local socket, and by its port over a network.
new = subprocess.Popen([sys.executable, '-c', '''
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b\"b\" * 4096, 4096)
print(\"wrote\", flush=True)
sys.stdin.readline()
h.pwrite(b\"d\" * 4096, 12288)
h.flush()
print(\"flushed\", flush=True)
sys.stdin.readline()
''', old.get_uri()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert new.stdout.readline() == 'wrote\\n'
# The old one's word does not count for both.
old.pwrite(b'c' * 4096, 8192)
old.flush()
print('mixed', flush=True)
time.sleep(3)
new.stdin.write('\\n'); new.stdin.flush()
assert new.stdout.readline() == 'flushed\\n'
time.sleep(3)
new.stdin.write('\\n'); new.stdin.flush()
new.wait()
old.shutdown()
",
    );
    assert!(done.status.success(), "{}\n{}", err(&done), site.log());
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let mut seen = Vec::new();
    for point in machine.points().unwrap() {
        let content = of_point(&machine.at(point.sequence).unwrap(), "sda");
        seen.push([content[0], content[4096], content[8192], content[12288]]);
    }
    seen.dedup();
    // Before the second came, and when its copy was complete; never between.
    assert_eq!(seen, [[b'a', 0, 0, 0], [b'a', b'b', b'c', b'd']], "{}", machine.points().unwrap().len());
}
