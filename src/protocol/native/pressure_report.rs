//! Layouts of what PRESSURE and WHY tell.

use crate::types::{
    CauseShare, DiskPressure, Entity, EntityKind, LimitUse, Limited, MetricValue, PressureEvent,
    PressureReport, PushbackCode, Timestamp, WhyReport, WhyStep, WouldRefuse,
};

wire_variants!(EntityKind {
    1 => Broker ["The broker as a whole."],
    2 => DataDir ["The data directory and its disk."],
    3 => Writer ["A log writer."],
    4 => Topic ["A topic."],
    5 => Group ["A consumer group."],
    6 => Quota ["A quota."],
    7 => Client ["A client id, with all its connections."],
    8 => Connection ["One connection."],
    9 => Publisher ["A publisher of a connection."],
    10 => Subscription ["A subscription of a connection."],
});

wire_fields!(Entity ["One thing that limits or is limited."] {
    kind: EntityKind ["Its kind."],
    name: String ["Its name: `orders`, `shop#12` for a connection, `shop#12/orders` for a publisher; empty for the broker and its data directory."],
});

wire_fields!(LimitUse ["One limit of the broker and what is used of it."] {
    limit: String ["Its name."],
    scope: String ["What it belongs to."],
    used: u64 ["Used, in `unit`."],
    of: u64 ["The limit, in `unit`; 0 = none."],
    unit: String ["Unit of `used` and `of`."],
    action: Option<PushbackCode> ["What is done to callers now, when it binds."],
    since_ms: Option<u64> ["Since when it binds, in milliseconds."],
    refused: u64 ["Refusals it caused since the start of the broker."],
});

wire_fields!(CauseShare ["For which part of the last minute a cause was binding."] {
    cause: String ["The cause with its name: `fsync`, `backlog:email`."],
    per_mille: u16 ["Its part in per mille."],
});

wire_fields!(Limited ["Somebody who is limited, or was in the last minute."] {
    entity: Entity ["Who."],
    by: String ["What limits it now; `none` when nothing does."],
    since_ms: Option<u64> ["For how long it has."],
    until_ms: Option<u64> ["In how many milliseconds it will no longer, where that is known."],
    shares: Vec<CauseShare> ["What limited it in the last minute, largest first."],
});

wire_fields!(DiskPressure ["The disk of the data directory."] {
    level: String ["`normal`, `low`, `high`, `full` or `emergency`."],
    capacity: u64 ["Bytes it could hold."],
    available: u64 ["Bytes that are left."],
    low: u64 ["Bytes left at which it counts as low ..."],
    high: u64 ["... as high ..."],
    full: u64 ["... and as full."],
    ingest_bps: u64 ["Bytes that come in per second."],
    reclaim_bps: u64 ["Bytes that are freed per second."],
    seconds_to_full: Option<u64> ["When it will be full if both stay so; absent = never."],
});

wire_fields!(PressureEvent ["A cause that came or went."] {
    at: Timestamp ["When it was seen."],
    entity: Entity ["Whose."],
    from: String ["What limited it before; `none` when nothing did."],
    to: String ["What limits it from then on; `none` when nothing does."],
    observed: u64 ["What was measured, in `unit`."],
    limit: u64 ["The limit, in `unit`; 0 = none is known."],
    unit: String ["Unit of both."],
    retry_after_ms: u32 ["When the limited side is to try again; 0 = no time can be named."],
    note: String ["What there is to say beside; mostly empty."],
});

wire_fields!(MetricValue ["One number of the broker."] {
    name: String ["As Prometheus names metrics. Of a histogram there are `_count`, `_sum` and quantiles."],
    labels: Vec<(String, String)> ["What it is of."],
    value: u64 ["Its value."],
});

wire_fields!(WouldRefuse ["Refusals that a dry run did not make."] {
    limit: String ["`quota`, `window` or `share`."],
    refusals: u64 ["Since the start of the broker."],
});

wire_fields!(PressureReport ["What limits whom, right now."] {
    enforcement: String ["`on`, `dry_run` or `off`: whether quotas, windows and shares refuse."],
    would_refuse: Vec<WouldRefuse> ["What those refused that do not, by limit."],
    limits: Vec<LimitUse> ["Every limit with its use, the binding ones first."],
    limited: Vec<Limited> ["Who is limited or was in the last minute: first who is now."],
    limited_left_off: u32 ["How many more there are."],
    disk: DiskPressure ["The disk."],
    events: Vec<PressureEvent> ["What came and went in the time asked for, oldest first; the newest 1,000."],
    metrics: Vec<MetricValue> ["Every number the broker counts, when they were asked for."],
});

wire_fields!(WhyStep ["One step from who waits to who makes it wait."] {
    entity: Entity ["Who."],
    by: String ["What limited it most in the last minute; `none` when nothing did."],
    per_mille: u16 ["For which part of the last minute."],
    observed: u64 ["What was measured, in `unit`."],
    limit: u64 ["The limit, in `unit`; 0 = none is known."],
    unit: String ["Unit of both."],
    since_ms: Option<u64> ["For how long it has been so."],
    until_ms: Option<u64> ["In how many milliseconds it ends, where that is known."],
});

wire_fields!(WhyReport ["The way from somebody who is limited to the root of it."] {
    steps: Vec<WhyStep> ["From who was asked for to the root; never empty."],
    root: Entity ["Where to do something."],
    advice: String ["What to do, in one or two sentences."],
    until_ms: Option<u64> ["In how many milliseconds it ends by itself, where that is known."],
});
