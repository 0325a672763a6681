//! Rewriting an initramfs: parse every segment, merge, add drivers, emit again.
