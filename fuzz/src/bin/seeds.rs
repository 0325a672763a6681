//! Makes the inputs that fuzzing starts from: `seeds FOLDER [CORPUS]`. FOLDER gets one folder for each target; CORPUS is
//! the folder of real images with its MANIFEST.tsv, if there is one. Nothing of it is committed.

use landfall_fuzz::sparse::Sparse;
use landfall_image::create::{Compression, CreateOptions, Preallocation};
use landfall_image::nbd::{self, Client, ClientOptions, Export, Uri};
use landfall_image::testing::{MemDisk, mixed, text_bytes};
use landfall_image::{Bytes, Disk, Format, GuestOffset, GuestRange, convert, formats, overlay::Overlay};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Larger inputs are fuzzed too slowly to be of use.
const INPUT_MAX: usize = 160 << 10;
/// Larger files are not looked at.
const FILE_MAX: u64 = 250 << 20;

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(out) = arguments.next() else { panic!("usage: seeds FOLDER [CORPUS]") };
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut seeds = Seeds { out, scratch: scratch.path().to_owned(), count: 0 };
    seeds.ours();
    seeds.partitions();
    seeds.archives();
    seeds.registry_files();
    for (target, name, input) in landfall_fuzz::hives::seeds() {
        seeds.put(target, name, &input);
    }
    for (name, input) in landfall_fuzz::frames::seeds() {
        seeds.put("send_frames", name, &input);
    }
    for (name, input) in landfall_fuzz::streams::seeds() {
        seeds.put("rbd_stream", name, &input);
    }
    seeds.drivers();
    seeds.talk().expect("a server and a client");
    if let Some(corpus) = arguments.next() {
        seeds.real(&corpus).expect("the corpus can be read");
    }
    println!("{} seeds", seeds.count);
}

struct Seeds {
    out: PathBuf,
    scratch: PathBuf,
    count: usize,
}

impl Seeds {
    fn put(&mut self, target: &str, name: &str, input: &[u8]) {
        let folder = self.out.join(target);
        std::fs::create_dir_all(&folder).expect("a folder for the seeds");
        std::fs::write(folder.join(name), input).expect("a seed");
        self.count += 1;
    }

    /// The file at `path` as a seed, where it is small enough.
    fn file(&mut self, target: &str, name: &str, path: &Path) {
        let file = File::open(path).expect("the file is there");
        if file.metadata().is_ok_and(|meta| meta.len() > FILE_MAX) {
            return;
        }
        if let Some(sparse) = Sparse::from_file(&file, INPUT_MAX).expect("can be read") {
            self.put(target, name, &sparse.encode());
        }
    }

    /// The start of the file at `path` as a seed, with all of its length.
    fn head(&mut self, target: &str, name: &str, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let mut start = Vec::new();
        file.try_clone()?.take(INPUT_MAX as u64 - 4096).read_to_end(&mut start)?;
        let sparse = Sparse { repair: true, len: file.metadata()?.len(), windows: vec![(0, start)] };
        self.put(target, name, &sparse.encode());
        Ok(())
    }

    /// Every kind that is written, of small disks.
    fn ours(&mut self) {
        let small = MemDisk::new(Bytes(5 << 20)).data(0, text_bytes(1, 5000)).data(3 << 20, [7; 512]);
        let large = MemDisk::new(Bytes(20 << 30)).data(17 << 30, text_bytes(2, 2000));
        let plain = CreateOptions::default;
        let sized = |bytes| CreateOptions { block_size: Some(Bytes(bytes)), ..plain() };
        let options = [
            ("plain", plain()),
            ("zlib", CreateOptions { compression: Some(Compression::Zlib), ..plain() }),
            ("zstd", CreateOptions { compression: Some(Compression::Zstd), ..plain() }),
            ("extended", CreateOptions { extended_l2: true, ..plain() }),
            ("allocated", CreateOptions { preallocation: Preallocation::Metadata, ..plain() }),
            ("512", sized(512)),
            ("4k", sized(4096)),
            ("1m", sized(1 << 20)),
            ("32m", sized(32 << 20)),
        ];
        // A package is an archive around a kind that is there already.
        for kind in formats::KINDS.iter().filter(|kind| kind.format != Format::Raw && kind.name != "ova") {
            for (disk_name, disk) in [("small", &small), ("large", &large)] {
                for (name, options) in &options {
                    // One name, since it is in the image.
                    let folder = self.scratch.join("ours");
                    std::fs::create_dir_all(&folder).expect("a folder");
                    let path = folder.join("disk");
                    if let Ok(sink) = (kind.create)(&path, disk.size(), options) {
                        let done = convert::convert(disk, sink, &convert::Options::default());
                        for (n, file) in done.expect("converts").receipt.files.iter().enumerate().take(3) {
                            let name = format!("ours-{}-{disk_name}-{name}-{n}", kind.name);
                            self.file(kind.format.name(), &name, file);
                        }
                    }
                    let _ = std::fs::remove_dir_all(&folder);
                }
            }
        }
    }

    /// Files of regedit's, in both formats.
    fn registry_files(&mut self) {
        let body = "[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\a]\r\n@=\"x\"\r\n\"b\\\\\"=dword:0000000a ; c\r\n\
            \"d\"=hex(7):61,00,\\\r\n  00,00,00,00\r\n\"e\"=-\r\n[-HKEY_USERS\\.DEFAULT\\f]\r\n[HKEY_CLASSES_ROOT\\.g]\r\n\"h\"=hex(2):25,00\r\n";
        let five = format!("Windows Registry Editor Version 5.00\r\n\r\n{body}");
        let wide: Vec<u8> = five.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.put("reg_file", "utf8", five.as_bytes());
        self.put("reg_file", "utf16", &[&[0xff, 0xfe], wide.as_slice()].concat());
        self.put("reg_file", "ansi", format!("REGEDIT4\r\n\r\n{body}").as_bytes());
    }

    /// An INF file, and discs of the three kinds of names.
    fn drivers(&mut self) {
        const INF: &str = "[Version]\nClassGuid={4D36E97B-E325-11CE-BFC1-08002BE10318}\nProvider=%V%\nCatalogFile=a.cat\n\
            DriverVer=12/02/2021,1.2.3.4\n[Manufacturer]\n%V%=M,NTx86.6.1,NTamd64.10.0...14393\n[M.NTamd64.10.0...14393]\n\
            %D%=I, PCI\\VEN_1AF4&DEV_1001, \\ ; two\n PCI\\CC_01\n[I.NT]\nCopyFiles=F,@b.dll\nAddReg=R\n[F]\na.sys,,,2\n\
            [SourceDisksNames]\n1=x,,,sub\n[SourceDisksFiles]\na.sys=1,dir\n[DestinationDirs]\nF=12,d\nDefaultDestDir=11\n\
            [R]\nHKR,\"a\\b\",\"5\",0x10001,1\nHKR,,m,0x10000,a,\"b\"\"c\"\nHKR,,x,1,01,fe\n[I.NT.HW]\nAddReg=R\n\
            [I.NT.Services]\nAddService=s,2,S,L,,n\n[S]\nServiceType=1\nStartType=%T%\nErrorControl=1\n\
            ServiceBinary=%12%\\a.sys\nDependencies=p\nAddReg=R\n[L]\nAddReg=R\n[I.NT.Wdf]\nKmdfService=s,W\n[W]\n\
            KmdfLibraryVersion=1.15\n[Strings]\nV=\"v\"\nD=d%%\nT=0x3\n[Strings.0409]\nV=x\n";
        self.put("inf", "ours", INF.as_bytes());
        let wide: Vec<u8> = INF.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.put("inf", "ours-wide", &[&[0xff, 0xfe], wide.as_slice()].concat());
        let tree = self.scratch.join("disc");
        std::fs::create_dir_all(tree.join("Driver/w10/a name of more than eight")).expect("folders");
        std::fs::write(tree.join("Driver/w10/a name of more than eight/driver.inf"), INF).expect("a file");
        for (name, options) in
            [("rock", &["-r", "-J"][..]), ("joliet", &["-J"]), ("long", &["-iso-level", "4"]), ("udf", &["-udf", "-r"])]
        {
            let image = self.scratch.join("disc.iso");
            let mut tool = std::process::Command::new("genisoimage");
            match tool.arg("-quiet").args(options).arg("-o").arg(&image).arg(&tree).status() {
                Ok(status) if status.success() => self.file("iso", &format!("genisoimage-{name}"), &image),
                _ => eprintln!("SKIPPED: seeds of discs: genisoimage is not installed"),
            }
        }
    }

    /// An archive of XCP-ng's, and its definition. The blocks are short, so that the input is.
    fn archives(&mut self) {
        let definition = "<value><struct><member><name>version</name><value><struct/></value></member><member><name>objects</name>\
            <value><array><data><value><struct><member><name>class</name><value>VM</value></member><member><name>id</name>\
            <value>Ref:0</value></member><member><name>snapshot</name><value><struct><member><name>memory_static_max</name>\
            <value>1048576</value></member></struct></value></member></struct></value><value><struct><member><name>class</name>\
            <value>VDI</value></member><member><name>id</name><value>Ref:1</value></member><member><name>snapshot</name><value>\
            <struct><member><name>virtual_size</name><value>4096</value></member></struct></value></member></struct></value><value>\
            <struct><member><name>class</name><value>VBD</value></member><member><name>id</name><value>Ref:2</value></member>\
            <member><name>snapshot</name><value><struct><member><name>VM</name><value>Ref:0</value></member><member><name>VDI</name>\
            <value>Ref:1</value></member><member><name>userdevice</name><value>0</value></member></struct></value></member></struct>\
            </value></data></array></value></member></struct></value>";
        self.put("xen_definition", "small", definition.as_bytes());
        let mut tar = Vec::new();
        for (name, content) in [
            ("ova.xml", definition.as_bytes()),
            ("Ref:1/00000000", &[7; 1024][..]),
            ("Ref:1/00000000.checksum", b"0000000000000000000000000000000000000000"),
            ("Ref:1/00000003", &[8; 1024]),
            ("Ref:1/00000003.xxhash", b"0000000000000000"),
        ] {
            let mut header = [0; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            header[148..156].fill(b' ');
            header[156] = b'0';
            header[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u64 = header.iter().copied().map(u64::from).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            tar.extend(header);
            tar.extend(content);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
        tar.resize(tar.len() + 1024, 0);
        let sparse = Sparse { repair: true, len: tar.len() as u64, windows: vec![(0, tar)] };
        self.put("xva", "small", &sparse.encode());
    }

    /// Disks with tables, as sfdisk would write them.
    fn partitions(&mut self) {
        let mut mbr = vec![0; 512];
        for (n, kind) in [0x83u8, 0x07, 0x05, 0x82].into_iter().enumerate() {
            let at = 446 + 16 * n;
            mbr[at + 4] = kind;
            mbr[at + 8..at + 12]
                .copy_from_slice(&(2048 + 1000 * u32::try_from(n).unwrap_or(0)).to_le_bytes());
            mbr[at + 12..at + 16].copy_from_slice(&900u32.to_le_bytes());
        }
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut logical = mbr.clone();
        logical[446 + 16..510].fill(0);
        let sparse =
            Sparse { repair: true, len: 4 << 20, windows: vec![(0, mbr.clone()), (4048 * 512, logical)] };
        self.put("partitions", "mbr", &sparse.encode());

        mbr[446 + 4] = 0xee;
        for sector in [512u64, 4096] {
            let len = 2048 * sector;
            let header = |own: u64, other: u64, entries: u64| {
                let mut header = vec![0; 512];
                header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
                for (at, value) in [(24, own), (32, other), (40, 34), (48, 2000), (72, entries)] {
                    header[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
                header[80..88].copy_from_slice(&[8, 0, 0, 0, 128, 0, 0, 0]);
                header
            };
            let mut entries = vec![0; 1024];
            for (n, entry) in entries.chunks_mut(128).take(3).enumerate() {
                let n = u8::try_from(n).unwrap_or(0);
                entry[..32].fill(n + 1);
                entry[33] = n + 1;
                entry[41] = n + 1;
                entry[40] = 255;
                entry[56] = b'a';
            }
            let windows = vec![
                (0, mbr.clone()),
                (sector, header(1, 2047, 2)),
                (2 * sector, entries.clone()),
                (len - 3 * sector, entries),
                (len - sector, header(2047, 1, 2045)),
            ];
            let sparse = Sparse { repair: true, len, windows };
            self.put("partitions", &format!("gpt-{sector}"), &sparse.encode());
        }
    }

    /// What our client and our server say to each other.
    fn talk(&mut self) -> io::Result<()> {
        let socket = self.scratch.join("socket");
        let listener = UnixListener::bind(&socket)?;
        let relay = std::thread::spawn(move || -> io::Result<[Vec<u8>; 2]> {
            let (client, _) = listener.accept()?;
            let (near, far) = UnixStream::pair()?;
            let server = std::thread::spawn(move || {
                let disk = Overlay::new(Arc::new(mixed(1, Bytes(6 << 20))), &std::env::temp_dir());
                let _ = nbd::serve(&disk.expect("an overlay"), &far, Export::default());
                let _ = far.shutdown(Shutdown::Both);
            });
            let (from, to) = (client.try_clone()?, near.try_clone()?);
            let asked = std::thread::spawn(move || copy(from, to));
            let said = copy(near, client);
            let asked = asked.join().expect("no panic");
            server.join().expect("no panic");
            Ok([said, asked])
        });
        let uri = Uri::parse(&format!("nbd+unix:///?socket={}", socket.display())).expect("a URI");
        let options = ClientOptions { connections: 1, ..ClientOptions::default() };
        let client = Client::connect(&uri, &options).expect("connects");
        let whole = GuestRange::new(GuestOffset(0), client.size());
        client.extents(whole, 100).expect("the map");
        client.read_at(GuestOffset(100), &mut [0; 5000]).expect("a read");
        client.write_at(GuestOffset(0), &[1; 512]).expect("a write");
        client.zero_at(GuestRange::new(GuestOffset(4096), Bytes(4096))).expect("zeros");
        client.flush().expect("a flush");
        drop(client);
        let [said, asked] = relay.join().expect("no panic")?;
        self.put("nbd_client", "session", &said);
        self.put("nbd_server", "session", &asked);
        self.put("nbd_receiver", "session", &asked);
        Ok(())
    }

    /// The small ones of the corpus, by their kind.
    fn real(&mut self, corpus: &Path) -> io::Result<()> {
        let manifest = std::fs::read_to_string(corpus.join("MANIFEST.tsv"))?;
        for line in manifest.lines() {
            let mut fields = line.split('\t');
            let (Some(path), Some(kind)) = (fields.next(), fields.next()) else { continue };
            let kind = kind.split('-').next().unwrap_or(kind);
            let targets: &[&str] = match kind {
                "qcow2" | "vmdk" | "vhdx" | "vhd" | "vdi" | "ova" => &[kind],
                "raw" if path.contains("luks") => &["luks"],
                "raw" => &["partitions"],
                "other" => &["vdi"],
                "hyperv" if path.ends_with(".vmcx") => &["vmcx"],
                "hive" => &["hive"],
                _ => continue,
            };
            let stored = corpus.join(path);
            let Ok(file) = File::open(&stored) else { continue };
            let unpacked = self.scratch.join("unpacked");
            let whole = if path.ends_with(".zst") {
                expand(zstd::Decoder::new(file)?, &unpacked)?
            } else {
                expand(file, &unpacked)?
            };
            if whole {
                for target in targets {
                    if matches!(*target, "vmcx" | "hive") {
                        // Read whole, as it is: no sparse file.
                        let input = std::fs::read(&unpacked)?;
                        if *target == "vmcx" || input.len() <= INPUT_MAX {
                            self.put(target, &path.replace('/', "-"), &input);
                        }
                        continue;
                    }
                    if *target == "luks" {
                        // The header is what counts; whatever lies behind it.
                        self.head("luks", &path.replace('/', "-"), &unpacked)?;
                    }
                    self.file(target, &format!("real-{}", path.replace('/', "-")), &unpacked);
                }
            }
        }
        Ok(())
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(n @ 1..) = from.read(&mut buf) {
        all.extend_from_slice(&buf[..n]);
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    all
}

/// Writes a file with holes for zeros; false where it is too long.
fn expand(mut from: impl Read, target: &Path) -> io::Result<bool> {
    let mut file = File::create(target)?;
    let mut block = Vec::new();
    while from.by_ref().take(1 << 16).read_to_end(&mut block)? > 0 {
        if block.iter().all(|&byte| byte == 0) {
            file.seek(SeekFrom::Current(i64::try_from(block.len()).unwrap_or(0)))?;
        } else {
            file.write_all(&block)?;
        }
        if file.stream_position()? > FILE_MAX {
            return Ok(false);
        }
        block.clear();
    }
    let len = file.stream_position()?;
    file.set_len(len)?;
    Ok(true)
}
