//! Kernel modules: dependencies, aliases and the indexes that modprobe reads.
