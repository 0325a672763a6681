//! What a client says to the receiver, without a socket: handshake, requests however they are cut, answers.

use landfall::receive::ExportName;
use landfall::receive::nbd::inbox::{Inbox, Next};
use landfall_image::Bytes;
use landfall_image::nbd::answer::{Answers, REPLY_OVERHEAD, fetches};
use landfall_image::nbd::handshake::{Chosen, Denied, Encryption, Handshake, Offer, Offers, Step};
use landfall_image::nbd::protocol::{CMD_DISC, CMD_WRITE, Request};
use landfall_image::overlay::Overlay;
use landfall_image::testing::{MemDisk, mixed};
use std::sync::{Arc, OnceLock};

/// Every name that can be one.
struct Any;

impl Offers for Any {
    fn find(&self, name: &str) -> Result<Offer, Denied> {
        if !name.is_empty() && ExportName::parse(name).is_none() {
            return Err(Denied::Unknown);
        }
        let name = name.to_owned();
        Ok(Offer { size: 6 << 20, preferred: 4096, read_only: false, name, description: None, many: true })
    }
    fn list(&self) -> Vec<(String, String)> {
        vec![("machine/disk".into(), "a disk".into())]
    }
}

/// The input is all that the client ever says; whether it has to encrypt first is tried both ways.
pub fn receiver(input: &[u8]) {
    for encryption in [Encryption::None, Encryption::Required] {
        if let Some((chosen, rest)) = greet(input, encryption) {
            serve(rest, chosen);
        }
    }
}

fn greet(mut input: &[u8], encryption: Encryption) -> Option<(Chosen, &[u8])> {
    let mut encrypted = encryption == Encryption::None;
    let (mut handshake, _) = Handshake::new(encryption);
    loop {
        let wants = handshake.wants();
        assert!((1..=16 << 10).contains(&wants));
        let (message, rest) = input.split_at_checked(wants)?;
        input = rest;
        let mut out = Vec::new();
        let step = handshake.take(message, &Any, &mut out);
        // Before it is encrypted no name and no size is in an answer.
        assert!(encrypted || out.len() <= 40, "{} bytes in the clear", out.len());
        match step.ok()? {
            Step::More => {}
            Step::Left => return None,
            Step::Encrypt => {
                handshake.encrypted();
                encrypted = true;
            }
            Step::Transmission(_, chosen) => {
                assert!(encrypted);
                return Some((chosen, input));
            }
        }
    }
}

fn serve(mut input: &[u8], chosen: Chosen) {
    static BASE: OnceLock<Arc<MemDisk>> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        crate::limit_memory();
        Arc::new(mixed(1, Bytes(6 << 20)))
    });
    let Ok(disk) = Overlay::new(base.clone(), &std::env::temp_dir()) else { return };
    let answers = Answers { disk: &disk, writer: Some(&disk), chosen };
    let mut inbox = Inbox::default();
    let mut long: Option<(Request, Vec<u8>)> = None;
    let mut reply = Vec::new();
    loop {
        if let Some((request, data)) = &mut long {
            let len = usize::try_from(request.len).unwrap_or(usize::MAX);
            let missing = len - data.len();
            data.extend_from_slice(inbox.part(missing));
            if data.len() == len {
                let _ = answers.apply(request, data);
                long = None;
            }
        }
        if long.is_none() {
            match inbox.take() {
                Err(_) => return,
                Ok(Next::Whole(request, _)) if request.command == CMD_DISC => return,
                Ok(Next::Whole(request, _)) if fetches(&request) => {
                    // Every fuzzed read of 32 MiB would take the run's time.
                    if request.len <= 1 << 20 || request.command != 0 {
                        match answers.fetch(&request, &mut reply) {
                            Ok(len) => assert!(len as u64 <= u64::from(request.len) + u64::from(REPLY_OVERHEAD)),
                            Err(refusal) => drop(answers.refuse(&request, &refusal)),
                        }
                    }
                    continue;
                }
                Ok(Next::Whole(request, data)) => {
                    let data = inbox.data(data);
                    if request.command == CMD_WRITE {
                        assert_eq!(data.len(), usize::try_from(request.len).unwrap_or(usize::MAX));
                    }
                    let _ = answers.apply(&request, data);
                    continue;
                }
                Ok(Next::Long(request)) => {
                    long = Some((request, Vec::new()));
                    continue;
                }
                Ok(Next::More) => {}
            }
        }
        if input.is_empty() {
            return;
        }
        // As if the socket had brought as many.
        let step = 1 + usize::from(input[0]) * 64;
        let room = inbox.room();
        assert!(!room.is_empty());
        let len = step.min(room.len()).min(input.len());
        room[..len].copy_from_slice(&input[..len]);
        inbox.filled(len);
        input = &input[len..];
    }
}
