//! How much of the service the API's clients may take.

use std::time::Duration;

/// What clients may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once over the network.
    pub connections: usize,
    /// Of these, from one address (one /64 of IPv6).
    pub per_address: usize,
    /// Connections at once over the local socket: strangers cannot keep those on this machine out.
    pub local: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a request's header, and between two requests.
    pub header: Duration,
    /// For a request's body.
    pub body: Duration,
    /// Without a byte of an answer being taken.
    pub stall: Duration,
    /// Of a connection, but for bodies of any length that are on their way then.
    pub lifetime: Duration,
    /// Requests that are worked on at once.
    pub work: usize,
    /// Requests at once with a large body.
    pub large: usize,
    /// Requests at once that bring what another landfall sends: 16 MiB each.
    pub sends: usize,
    /// Requests at once whose bodies or answers are of any length.
    pub flows: usize,
    /// Without a byte of a body of any length: what makes it may read much before there is something to send.
    pub silence: Duration,
    /// That a request waits for others.
    pub wait: Duration,
    /// After this much of a stop, those that are still busy are cut off.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 512,
            per_address: 64,
            local: 256,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            lifetime: Duration::from_secs(600),
            work: 16,
            large: 2,
            sends: 8,
            flows: 32,
            silence: Duration::from_secs(1800),
            wait: Duration::from_secs(30),
            shutdown: Duration::from_secs(10),
        }
    }
}
