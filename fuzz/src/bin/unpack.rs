//! Turns an input of the fuzzer into the file that it stands for, checksums made right: `unpack INPUT FILE`.

use landfall_fuzz::{repair, sparse::Sparse};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err(std::io::Error::other("usage: unpack INPUT FILE"));
    };
    let sparse = Sparse::decode(&std::fs::read(input)?);
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(output)?;
    sparse.write(&file)?;
    if sparse.repair {
        repair::all(&file);
    }
    Ok(())
}
