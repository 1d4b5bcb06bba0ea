//! Everything that limits (DESIGN section 4): the hard pool for bytes in flight, shares of it, the
//! fetch pool, disk levels, topic limits, publishers' grants and subscriptions' credit; quotas and
//! backlog limits; and the causes by which everybody is told what limits whom.
//!
//! The machines here take time and sizes as arguments and do no I/O, so that they are tested
//! without threads and reused by the simulator. Deliberately absent: who calls them, and when.

mod admission;
mod backlog;
mod binding;
mod bucket;
mod cause;
mod connection;
mod credit;
mod disk;
mod dry_run;
mod events;
mod facade;
mod fair;
mod fetch_pool;
mod header;
#[cfg(test)]
mod isolation;
mod lanes;
mod limit;
mod notes;
mod options;
mod pace;
mod parties;
mod party;
mod pool;
mod pressure;
mod publisher;
mod quota;
mod reads;
mod registry;
mod report;
mod retry;
mod serving;
mod settled;
mod tick;
mod waits;
mod why;
mod writer;

pub use admission::{Ask, Outcome, Ticket};
pub use backlog::{
    Backlog, BacklogClaim, BacklogEdge, BacklogGate, BacklogGauge, BacklogHold, BacklogOptions,
    BacklogReservation, BacklogRules, BacklogWatch, Backlogged, Board, GroupSeen, Lag, LagRing,
    Mark, PartitionSeen, Past, Phase, Progress, Side,
};
pub use binding::Binding;
pub use bucket::{Bucket, Owing, UNLIMITED};
pub use cause::{Cause, CauseId, CauseMeter, Change, Names};
pub use connection::{Charged, ConnectionFlow, Identity};
pub use credit::{Credit, CreditBudget, SubscriptionCredit};
pub use disk::{
    DiskGauge, DiskLevel, DiskMarks, DiskOptions, DiskWatch, Edge, Forecast, Ladder,
    PartitionSpace, Room, Sealed, TopicSpace, TrimOrder, plan,
};
pub use dry_run::Forgone;
pub use events::{Events, Followed};
pub use facade::{Flow, Opening, PartitionFlow, Surroundings, TopicFlow};
pub use fair::{Claim, max_min};
pub use fetch_pool::{FetchPermit, FetchPool, OnTheWay, Reading};
pub use header::HeaderTicket;
pub use limit::{
    AtLimit, Measured, Over, TopicEdge, TopicLimit, TopicRoom, TopicRules, TopicWatch,
};
pub use options::{Enforcement, FlowOptions};
pub use pace::{GroupPace, Paces, ReadTopic};
pub use parties::Parties;
pub use party::{Numbers, Party, PressureEdge, Settling};
pub use pool::{ConnectionShare, Permit, Pool, Reserved, Share};
pub use pressure::{Pressure, PressureOptions, States};
pub use publisher::{
    AfterViolation, Claimant, Divider, Grant, GrantOptions, NoWake, Offer, PublisherGrant, Scratch,
    Seat, Seats, Standing, Violation, Wake, WriterMask,
};
pub use quota::{
    Chain, Cost, Direction, LevelHold, Place, QuotaOptions, QuotaRefusal, QuotaTable, QuotaTree,
    Scope, Subject, in_time,
};
pub use reads::{ColdReads, ReadOptions, ReadPath, ReadShare};
pub use registry::Registry;
pub use report::{Graph, Node, desired_consumers, limited_totals};
pub use retry::{busy, retry_after_ms};
pub use serving::Serving;
pub use settled::Settled;
pub use tick::Facts;
pub use waits::Waits;
pub use why::why;
pub use writer::{
    Controller, ControllerOptions, Demand, Full, Interval, Level, Load, Seen, Verdict, Within,
    WriterGauge,
};
