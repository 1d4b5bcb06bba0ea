//! How full the disk of a data directory is, and what that does to producers (DESIGN section 4, disk
//! watermarks). Reads, commits, acknowledgements, deletes and retention are never refused here: the
//! room below FULL is theirs.
//!
//! [`DiskGauge`] is what every batch passes; [`DiskWatch`] looks at the disk now and then and
//! decides, through its marks, its ladder of levels and its forecast.
//!
//! | level | from | user produce |
//! |---|---|---|
//! | LOW | 15 % | goes on; retention runs at once, nothing is allocated ahead |
//! | HIGH | 8 % | what is reclaimed, and the rest of the room over `horizon`; bulk is refused |
//! | FULL | 4 % | is refused |
//! | EMERGENCY | the disk itself said so | is refused; ends by itself |
//!
//! # Invariants
//! `full <= high <= low <= capacity`. What is admitted never takes the estimate of free bytes to
//! FULL or below.

mod forecast;
mod gauge;
mod ladder;
mod marks;
mod reclaim;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use forecast::Forecast;
pub use gauge::{DiskGauge, Room};
pub use ladder::{Edge, Ladder};
pub use marks::DiskMarks;
pub use reclaim::{PartitionSpace, Sealed, TopicSpace, TrimOrder, plan};

/// How full a disk is. The order is the order of severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DiskLevel {
    /// Room enough.
    #[default]
    Normal = 0,
    /// Little is left: what may go, goes.
    Low = 1,
    /// Less: user produce slows down to what is reclaimed.
    High = 2,
    /// User produce is refused.
    Full = 3,
    /// A write met the end of the disk, whatever was measured.
    Emergency = 4,
}

impl DiskLevel {
    /// The name as JSON and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            DiskLevel::Normal => "normal",
            DiskLevel::Low => "low",
            DiskLevel::High => "high",
            DiskLevel::Full => "full",
            DiskLevel::Emergency => "emergency",
        }
    }

    /// Back from the number an atomic holds.
    fn from_u8(number: u8) -> DiskLevel {
        match number {
            0 => DiskLevel::Normal,
            1 => DiskLevel::Low,
            2 => DiskLevel::High,
            3 => DiskLevel::Full,
            _ => DiskLevel::Emergency,
        }
    }
}

/// Rules of one data directory. `None` = by the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskOptions {
    /// Bytes that the data directory may take; `None` = all of its disk. A limit without a file
    /// system or rights of its own.
    pub capacity_bytes: Option<u64>,
    /// Free bytes at which LOW begins.
    pub low: Option<u64>,
    /// Free bytes at which HIGH begins.
    pub high: Option<u64>,
    /// Free bytes at which FULL begins.
    pub full: Option<u64>,
    /// Time over which the room between HIGH and FULL may be used up.
    pub horizon: Option<Duration>,
    /// Time between two looks at the disk: retention and others move it by then.
    pub look_every: Duration,
    /// The same under pressure: what comes meanwhile is subtracted anyway.
    pub look_under_pressure: Duration,
    /// A level ends after this long above its mark.
    pub clear_after: Duration,
    /// How long EMERGENCY lasts, doubled while it comes back at once.
    pub emergency_min: Duration,
    /// Its longest.
    pub emergency_max: Duration,
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions {
            capacity_bytes: None,
            low: None,
            high: None,
            full: None,
            horizon: None,
            look_every: Duration::from_secs(1),
            look_under_pressure: Duration::from_millis(250),
            clear_after: Duration::from_secs(2),
            emergency_min: Duration::from_secs(2),
            emergency_max: Duration::from_secs(30),
        }
    }
}

/// Decides about one data directory, one look at a time.
#[derive(Clone, Debug)]
pub struct DiskWatch {
    options: DiskOptions,
    marks: DiskMarks,
    ladder: Ladder,
    forecast: Forecast,
}

impl DiskWatch {
    /// A watch before its first look.
    pub fn new(options: DiskOptions) -> DiskWatch {
        DiskWatch {
            options,
            marks: DiskMarks::of(0, &options),
            ladder: Ladder::new(&options),
            forecast: Forecast::new(),
        }
    }

    /// Takes what the disk says at `now` and publishes what follows from it. Returns the edge when
    /// the level changed.
    ///
    /// `free` is what may still be allocated; what is admitted and not written yet is subtracted
    /// here.
    pub fn look(
        &mut self,
        now: Duration,
        capacity: u64,
        free: u64,
        gauge: &DiskGauge,
    ) -> Option<Edge> {
        self.marks = DiskMarks::of(capacity, &self.options);
        let available = gauge.measured(free);
        self.forecast.observe(now, gauge.written(), available);
        let from = self.ladder.level();
        if gauge.take_exhausted() {
            self.ladder.exhausted(now);
        }
        self.ladder.observe(now, available, &self.marks);
        gauge.publish(self.ladder.level(), &self.marks, self.forecast.reclaim_bps(), now);
        let to = self.ladder.level();
        (from != to).then_some(Edge { from, to })
    }

    /// When to look again.
    pub fn next_look(&self) -> Duration {
        self.ladder.next_look()
    }

    /// The marks of the last look.
    pub fn marks(&self) -> &DiskMarks {
        &self.marks
    }

    /// Rates, and when the marks are met.
    pub fn forecast(&self) -> &Forecast {
        &self.forecast
    }

    /// Bytes that would have to go for HIGH to end; 0 below it.
    pub fn needed(&self, gauge: &DiskGauge) -> u64 {
        if self.ladder.level() < DiskLevel::High {
            return 0;
        }
        let ends_at = self.marks.high.saturating_add(self.marks.hysteresis);
        ends_at.saturating_sub(gauge.available())
    }
}
