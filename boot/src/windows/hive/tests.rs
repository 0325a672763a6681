//! Hives of the corpus as its manifest says, before and after their logs.

mod corpus;
mod logs;
