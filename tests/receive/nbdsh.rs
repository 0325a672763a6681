//! Every command and every error of the protocol, with libnbd.

use super::*;

/// An interpreter with libnbd; `None`, after a loud word, where there is none.
pub fn python() -> Option<Command> {
    // Debian's own interpreter has Debian's modules, whatever else is called python3.
    let python = || Command::new("/usr/bin/python3");
    match python().args(["-c", "import nbd"]).output().is_ok_and(|out| out.status.success()) {
        true => Some(python()),
        false => {
            eprintln!("SKIPPED: no libnbd for Python here (Debian: python3-libnbd)");
            None
        }
    }
}

/// Runs a script with libnbd's handle `h`, which is connected where there is a URI; false, after a loud word, where
/// there is no libnbd for Python.
pub fn script(running: &Running, uri: Option<&str>, script: &str) -> bool {
    let Some(mut python) = python() else { return false };
    let path = running.path("script.py");
    let connect = match uri {
        Some(uri) => format!(
            "h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)\nh.set_strict_mode(0)\nh.connect_uri({uri:?})\n"
        ),
        None => String::new(),
    };
    let helpers = r"
import errno, nbd
h = nbd.NBD()
def fails(number, call, *args):
    try:
        call(*args)
    except nbd.Error as e:
        assert e.errnum == number, (call, args, e.errnum, number)
    else:
        raise AssertionError((call, args, 'works'))
";
    std::fs::write(&path, format!("{helpers}{connect}{script}\n")).unwrap();
    output(python.arg(&path));
    true
}

#[test]
fn every_command_does_what_it_says() {
    let running = Running::start();
    let disk = running.disk("web01/sda", 1 << 20);
    let uri = running.uri("web01/sda");
    let ran = script(
        &running,
        Some(&uri),
        r"
assert h.get_size() == 1 << 20 and h.get_structured_replies_negotiated()
h.pwrite(b'a' * 4096, 4096)
h.pwrite(b'b' * 512, 8192, nbd.CMD_FLAG_FUA)
h.zero(1024, 4096)
h.zero(1024, 5120, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
h.zero(512, 6144, nbd.CMD_FLAG_FUA)
h.trim(512, 6656)
h.trim(512, 7168, nbd.CMD_FLAG_FUA)
h.cache(65536, 0)
h.flush()
want = bytes(7680) + b'a' * 512 + b'b' * 512 + bytes(512)
assert h.pread(9216, 0) == want
assert h.pread(9216, 0, nbd.CMD_FLAG_DF) == want
runs = []
def extent(context, offset, entries, error):
    assert context == 'base:allocation' and error.value == 0
    runs.append((offset, list(entries)))
h.block_status(1 << 20, 0, extent)
lengths = runs[0][1][0::2]
assert sum(lengths) <= 1 << 20 and len(lengths) > 1, runs
runs.clear()
h.block_status(512 << 10, 512 << 10, extent, nbd.CMD_FLAG_REQ_ONE)
assert runs == [(512 << 10, [512 << 10, nbd.STATE_HOLE | nbd.STATE_ZERO])], runs
# A read of holes and data, one chunk after the other.
kinds = []
def chunk(data, offset, kind, error):
    kinds.append(kind)
assert h.pread_structured(1 << 20, 0, chunk)[:9216] == want
assert nbd.READ_HOLE in kinds and nbd.READ_DATA in kinds, kinds
h.pwrite(b'z', (1 << 20) - 1)
h.shutdown()
",
    );
    if !ran {
        return;
    }
    assert_eq!(
        disk.ops(),
        [
            Op::Write(4096, 4096, b'a'),
            Op::Write(8192, 512, b'b'),
            Op::Flush,
            Op::Zero(4096, 1024),
            Op::Zero(5120, 1024),
            Op::Zero(6144, 512),
            Op::Flush,
            Op::Zero(6656, 512),
            Op::Zero(7168, 512),
            Op::Flush,
            Op::Flush,
            Op::Write((1 << 20) - 1, 1, b'z'),
        ]
    );
    assert_eq!(running.wait_for("left"), "web01/sda: 0 left: the client left");
    let tally = running.monitor.read().total;
    assert_eq!(
        (tally.writes, tally.written_bytes, tally.zeroings, tally.flushes),
        (3, 4609, 5, 4),
        "{tally:?}"
    );
}

#[test]
fn every_error_has_its_number_and_leaves_the_connection_whole() {
    let running = Running::start();
    let disk = running.disk("web01/sda", 1 << 20);
    running.add("web01/cd", Arc::new(running.recorder("cd", 1 << 20)), true);
    disk.full.store(true, SeqCst);
    let ran = script(
        &running,
        Some(&running.uri("web01/sda")),
        r"
end = 1 << 20
fails(errno.ENOSPC, h.pwrite, b'x' * 512, end)
fails(errno.ENOSPC, h.pwrite, b'xy', end - 1)
fails(errno.ENOSPC, h.pwrite, b'x', 1 << 62)
fails(errno.ENOSPC, h.zero, 2, end - 1)
fails(errno.ENOSPC, h.trim, 2, end - 1)
fails(errno.EINVAL, h.pread, 2, end - 1)
fails(errno.EINVAL, h.cache, 2, end - 1)
fails(errno.EINVAL, h.block_status, 0, 0, lambda *a: 0)
fails(errno.EINVAL, h.block_status, 2, end - 1, lambda *a: 0)
fails(errno.EINVAL, h.pwrite, b'x' * 512, 0, 1 << 9)
fails(errno.EINVAL, h.flush, 1)
# The vault is full: said as such, so that QEMU can wait (on-target-error=enospc).
fails(errno.ENOSPC, h.pwrite, b'x' * 512, 0)
fails(errno.ENOSPC, h.zero, 512, 0)
fails(errno.ENOSPC, h.pwrite, b'x' * (1 << 20), 0)
assert h.pread(512, 0) == bytes(512)
h.shutdown()
",
    );
    if !ran {
        return;
    }
    assert_eq!(disk.ops(), [], "nothing of all that came to the disk");
    disk.full.store(false, SeqCst);
    disk.broken.store(true, SeqCst);
    script(
        &running,
        Some(&running.uri("web01/sda")),
        r"
fails(errno.EIO, h.pwrite, b'x' * 512, 0)
fails(errno.EIO, h.pwrite, b'x' * (1 << 20), 0)
fails(errno.EIO, h.pwrite, b'x' * 512, 0, nbd.CMD_FLAG_FUA)
fails(errno.EIO, h.zero, 512, 0)
fails(errno.EIO, h.flush)
fails(errno.EIO, h.pread, 512, 0)
assert h.get_size() == 1 << 20
",
    );
    script(
        &running,
        Some(&running.uri("web01/cd")),
        r"
assert h.is_read_only()
for call, args in ((h.pwrite, (b'x' * 512, 0)), (h.zero, (512, 0)), (h.trim, (512, 0)), (h.pwrite, (b'x' * (1 << 20), 0))):
    fails(errno.EPERM, call, *args)
assert h.pread(512, 0) == bytes(512)
h.flush()
",
    );
}

/// Options by themselves: what is asked for one export counts for no other, and old clients are understood.
#[test]
fn options_are_answered_one_by_one() {
    let running = Running::start();
    running.disk("web01/sda", 1 << 20);
    running.disk("web01/sdb", 2 << 20);
    let socket = running.socket();
    let socket = socket.to_str().unwrap();
    script(
        &running,
        None,
        &format!(
            r"
h.set_opt_mode(True)
h.connect_unix({socket:?})
names = []
h.opt_list(lambda name, description: names.append(name))
assert names == ['web01/sda', 'web01/sdb'], names
h.set_export_name('web01/sdb')
h.opt_info()
assert h.get_size() == 2 << 20
contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ['base:allocation'], contexts
h.set_export_name('web01/none')
fails(errno.ENOENT, h.opt_go)
h.set_export_name('web01/sda')
h.add_meta_context('base:allocation')
h.opt_go()
assert h.get_size() == 1 << 20 and h.can_meta_context('base:allocation')
h.shutdown()

# A client of 2013: EXPORT_NAME, simple replies, and the padding that nobody needs.
h = nbd.NBD()
h.set_handshake_flags(nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE)
h.set_request_structured_replies(False)
h.set_export_name('web01/sda')
h.connect_unix({socket:?})
h.pwrite(b'q' * 512, 512)
assert h.pread(1024, 0) == bytes(512) + b'q' * 512
h.shutdown()

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_unix({socket:?})
h.opt_abort()
"
        ),
    );
}
