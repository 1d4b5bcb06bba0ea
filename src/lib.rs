//! Stoplog: an append-only, partitioned event log whose subject is back pressure.
//!
//! Every producer and consumer always knows how much it may send, and when it may not: who limits
//! it, why, for how long, and whether the refused write had any effect. One binary is the broker,
//! the command line and the load generator; this library is all of them, and an embedded log too
//! (`broker::Broker::open`).
//!
//! # Rooms
//!
//! Lowest first. A room imports only what its row names; `tests/tidy.rs` reads this table and
//! fails when an import breaks it. `lib.rs` and `main.rs` may see all.
//!
//! | room | what | may import |
//! |---|---|---|
//! | `types` | names and numbers every room shares | - |
//! | `env` | the outside world: clock, randomness, disk, maps, and their simulation | types |
//! | `metrics` | counters, gauges, histograms and their names; no exporter | - |
//! | `record` | the one record-batch format: header, view, builder, CRC, compression | types |
//! | `storage` | bytes to a durable partition log | record env metrics types |
//! | `broker` | what a topic means: catalog, groups, flow; no sockets, no wire bytes | storage record env metrics types |
//! | `protocol` | bytes to requests and responses; pure, no I/O, no async | record types |
//! | `server` | listeners, connections, shutdown; translates protocol and broker | protocol broker record env metrics types |
//! | `http` | the HTTP edge | server broker record env metrics types |
//! | `client` | the async Rust client: producer, consumer, admin | protocol record env types |
//! | `bench` | load generator: workload, pacing, histogram, report, the floor server | client protocol record env metrics types |
//! | `config` | file + env + flags to each room's options | storage broker server http types |
//! | `cli` | the subcommands and the demo | all |

pub mod bench;
pub mod broker;
#[allow(clippy::disallowed_methods)] // people's files, terminals and waits: nothing to simulate
pub mod cli;
pub mod client;
pub mod config;
#[allow(clippy::disallowed_methods)] // the one room that may touch them
pub mod env;
pub mod metrics;
pub mod protocol;
pub mod record;
pub mod server;
pub mod storage;
pub mod types;
