//! Disk images of every producer there is a sample of.

mod adversity;
mod corpus;
mod generated;
mod hostile;
mod package;
mod pairs;
mod program;
mod readers;
mod second;
