//! The real guests and archives that the tests here go by, and how their files are looked at.

use super::*;

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
}

/// The corpus and its manifest.
pub fn corpus() -> Option<(PathBuf, String)> {
    let folder = crate::testing::corpus()?;
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).expect("MANIFEST.tsv");
    Some((folder, manifest))
}

/// The guests that `tools/make-trees.sh` made; a loud line for each that is absent.
pub fn guests() -> Vec<Guest> {
    let found = ["bullseye", "bookworm", "trixie"].into_iter().filter_map(|suite| {
        let (root, kernel) = tree("initramfs", suite)?;
        let archive = std::fs::read(root.join(format!("boot/initrd.img-{kernel}"))).expect("its initramfs");
        Some(Guest { suite, root, kernel, archive })
    });
    found.collect()
}

/// One of the trees that `tools/make-trees.sh` made, and its kernel.
pub fn tree(kind: &str, suite: &str) -> Option<(PathBuf, String)> {
    let root = workspace().join("target/guests").join(format!("{kind}-{suite}"));
    let kernel = std::fs::read_dir(root.join("lib/modules")).ok().and_then(|mut names| names.next()?.ok());
    let Some(kernel) = kernel.map(|entry| entry.file_name().to_string_lossy().into_owned()) else {
        eprintln!("SKIPPED: no guest {} (make it with tools/make-trees.sh)", root.display());
        return None;
    };
    Some((root, kernel))
}

pub struct Guest {
    pub suite: &'static str,
    pub root: PathBuf,
    pub kernel: String,
    pub archive: Vec<u8>,
}

impl Guest {
    pub fn edit(&self) -> InitramfsEdit {
        InitramfsEdit {
            kernel: self.kernel.clone(),
            starts_by_default: true,
            modules: format!("/lib/modules/{}", self.kernel),
            drivers: DRIVERS.iter().map(|name| name.to_string()).collect(),
            load: vec!["virtio_blk".into(), "virtio_scsi".into()],
            files: vec![crate::patch::InitramfsFile {
                path: "etc/systemd/network/10-landfall.link".into(),
                contents: "[Match]\n".to_string().into(),
                mode: 0o644,
            }],
            remove: Vec::new(),
            renames: Vec::new(),
            devices: Vec::new(),
            addresses: Vec::new(),
        }
    }
    pub fn tree(&self) -> HostTree {
        HostTree { root: self.root.clone(), free: None }
    }
}

/// A folder of the host as a guest. Links are followed by the host: good for guests that these tests made.
pub struct HostTree {
    pub root: PathBuf,
    pub free: Option<Bytes>,
}

impl HostTree {
    pub fn host(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl GuestTree for HostTree {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        Ok(std::fs::metadata(self.host(path)).ok().map(|meta| Meta {
            kind: if meta.is_dir() { NodeKind::Dir } else { NodeKind::File },
            size: Bytes(meta.len()),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime_seconds: meta.mtime(),
        }))
    }
    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.metadata(path)
    }
    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        let bytes = std::fs::read(self.host(path)).ok();
        assert!(bytes.as_ref().is_none_or(|bytes| bytes.len() as u64 <= at_most.0));
        Ok(bytes)
    }
    fn list(&self, _: &str) -> Result<Option<Vec<Entry>>> {
        Ok(None)
    }
    fn read_link(&self, _: &str) -> Result<Option<String>> {
        Ok(None)
    }
    fn free_space(&self, _: &str) -> Result<Option<Bytes>> {
        Ok(self.free)
    }
}

/// Runs a tool: `None`, with a loud line, where it is not installed.
pub fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: {:?} cannot be run: {error}", command.get_program());
            None
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The archive as the distribution's own tool unpacks it.
pub fn unpacked(archive: &[u8]) -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("initrd.img");
    std::fs::write(&file, archive).expect("write");
    let output = run(Command::new("unmkinitramfs").arg(&file).arg(dir.path().join("out")))?;
    assert!(output.status.success() && output.stderr.is_empty(), "unmkinitramfs: {}", text(&output.stderr));
    // Several archives come out in early, early2, main: laid over one another as the kernel does.
    let merged = dir.path().join("merged");
    std::fs::create_dir(&merged).expect("folder");
    let out = dir.path().join("out");
    let parts: Vec<PathBuf> =
        ["early", "early2", "early3", "main"].iter().map(|part| out.join(part)).collect();
    let parts = if parts.iter().any(|part| part.exists()) { parts } else { vec![out] };
    for part in parts.into_iter().filter(|part| part.exists()) {
        let output = run(Command::new("cp").arg("-a").arg(part.join(".")).arg(&merged))?;
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    Some(dir)
}
