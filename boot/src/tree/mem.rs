//! A guest tree in memory, for tests of everything that reads one.
