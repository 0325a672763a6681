//! The service's API: HTTP, for the command line on this machine and for others over TLS.
//!
//! ```text
//! api.sock (this user and root) ------------------.
//! https://…:8470 -> TLS -> token -> what it allows -+-> routes (one table) -> Service
//!                                                       `-> /openapi.json
//! ```
//! The table has each route once: its path, what it allows whom, the types that it takes and answers, and what it does. The router, the check of
//! credentials and the document are made of it.
//!
//! What callers cannot do: stop the service or take more than a bounded share of it, however slow, silent or many they are ([`server`]). Absent:
//! HTTP without TLS, HTTP/2, and a browser's needs (CORS, cookies).

mod answer;
mod call;
mod caller;
mod flow;
mod handlers;
mod limits;
mod line;
mod metrics;
mod openapi;
mod replica;
mod server;
mod table;
#[cfg(test)]
mod tests;

pub use caller::secret_digest;
pub use limits::Limits;
pub use server::{Api, bind};
