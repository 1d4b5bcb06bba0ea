//! What a crash leaves, by seed: which of the things not yet durable survive.

use super::image::SECTOR_BYTES;

/// Sectors of a segment's header region (16 KiB): where the slots are.
const HEADER_SECTORS: u64 = (16 << 10) / SECTOR_BYTES as u64;

/// Something not yet durable, whose versions a crash chooses among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A change of names; versions: not happened, happened.
    DirOp {
        /// Its position among the waiting ones, oldest first.
        index: usize,
    },
    /// The length of a file.
    Length {
        /// Number of the file.
        file: u32,
    },
    /// 512 bytes of a file.
    Sector {
        /// Number of the file.
        file: u32,
        /// Position in the file, in sectors.
        sector: u64,
        /// Position among the file's waiting sectors.
        rank: usize,
        /// How many of them there are.
        of: usize,
    },
}

/// The shape of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// Only what was synced survives.
    Nothing,
    /// Everything written survives.
    Everything,
    /// Any version of each, independently.
    Random,
    /// Of each file a run of first sectors: the ordinary torn tail.
    Early,
    /// Of each file a run of last sectors: a hole with valid bytes after it.
    Late,
    /// Only the first 16 KiB of each file: new slots, old data.
    Header,
    /// Everything but them: new data, old slots.
    Data,
}

/// All shapes.
const BIASES: [Bias; 7] = [
    Bias::Random,
    Bias::Nothing,
    Bias::Everything,
    Bias::Early,
    Bias::Late,
    Bias::Header,
    Bias::Data,
];

/// A reproducible crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Its shape.
    pub bias: Bias,
    /// Its details.
    pub seed: u64,
}

impl Crash {
    /// A crash whose shape comes from the seed too; about a third are `Random`.
    pub fn from_seed(seed: u64) -> Crash {
        let roll = usize::try_from(mix(seed) % 9).unwrap_or(0);
        Crash { bias: BIASES.get(roll).copied().unwrap_or(Bias::Random), seed }
    }

    /// The version (0 = durable, `versions - 1` = newest) that survives of `unit`.
    pub(super) fn choose(self, unit: Unit, versions: usize) -> usize {
        let newest = versions - 1;
        let roll = |salt: u64| mix(self.seed ^ mix(salt));
        let key = match unit {
            Unit::DirOp { index } => index as u64,
            Unit::Length { file } => (1 << 40) | u64::from(file),
            Unit::Sector { file, sector, .. } => (2 << 40) | (u64::from(file) << 20) | sector,
        };
        let any = usize::try_from(roll(key) % versions as u64).unwrap_or(0);
        match (self.bias, unit) {
            (Bias::Nothing, _) => 0,
            (Bias::Everything, _) => newest,
            (Bias::Random, _) => any,
            // The other shapes are about sectors: names and lengths mostly survive.
            (_, Unit::DirOp { .. } | Unit::Length { .. }) => {
                if roll(key ^ 0x55) % 4 == 0 {
                    any
                } else {
                    newest
                }
            }
            (bias, Unit::Sector { file, sector, rank, of }) => {
                let bound = roll(u64::from(file) | (3 << 40)) % (of as u64 + 1);
                let survives = match bias {
                    Bias::Early => (rank as u64) < bound,
                    Bias::Late => (rank as u64) >= bound,
                    Bias::Header => sector < HEADER_SECTORS,
                    _ => sector >= HEADER_SECTORS,
                };
                if survives { newest } else { 0 }
            }
        }
    }
}

/// The finalizer of SplitMix64.
pub(super) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
