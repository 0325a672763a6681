//! The sandbox's PID 1 by itself, for the tests of this crate. The program packs itself in.

use landfall_boot::sandbox::agent;

fn main() {
    if agent::is_sandbox() {
        agent::run();
    }
    eprintln!("this is PID 1 of the patch sandbox; it does nothing elsewhere");
    std::process::exit(2);
}
