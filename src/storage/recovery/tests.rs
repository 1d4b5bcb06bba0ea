//! One test per row of the table, and the rules around it.

use crate::env::sim::{Bias, Crash, Fault};
use crate::storage::footer::FOOTER_BYTES;
use crate::storage::index::INDEX_INTERVAL_BYTES;
use crate::storage::sample::{NOW, Sample, SampleSegment, producer_batch};
use crate::storage::slot::{OFFSET_LEASE, Slot};
use crate::storage::snapshot::encode_snapshot;
use crate::storage::{ProducerCheck, ProducerState};
use crate::types::PartitionHealth;

use super::*;

/// One active segment: 40 synced batches, then what `then` does to it.
fn with_active(then: impl FnOnce(&mut SampleSegment)) -> (Sample, SampleSegment) {
    let mut sample = Sample::new();
    let mut segment = sample.segment(0, 0);
    segment.append(20, 3, 200);
    segment.sync();
    segment.append(20, 3, 200);
    segment.sync();
    then(&mut segment);
    sample.add_active(&segment);
    sample.disk.write_file(sample.paths.index(Offset(0)), &segment.index.encode(segment.slot.tag));
    (sample, segment)
}

fn rows(recovered: &Recovered) -> Vec<&'static str> {
    let row = |finding: &Finding| match finding {
        Finding::Row { row, .. } => Some(*row),
        _ => None,
    };
    recovered.findings.iter().filter_map(row).collect()
}

fn active(recovered: &Recovered) -> &RecoveredActive {
    recovered.active.as_ref().expect("an active segment")
}

/// The second recovery changes no byte and comes to the same state.
fn assert_settled(sample: &Sample, first: &Recovered) -> Recovered {
    let before = sample.contents();
    let ops = sample.disk.fork();
    let second = sample.recover();
    assert_eq!(sample.contents(), before, "the second recovery wrote");
    assert_eq!(second.next_offset, first.next_offset);
    assert_eq!((second.log_start, second.log_end), (first.log_start, first.log_end));
    assert_eq!(second.leader_epoch, first.leader_epoch);
    assert_eq!(second.epochs, first.epochs);
    assert_eq!(second.health, first.health);
    assert_eq!(second.producers, first.producers);
    drop(ops);
    second
}

fn first_bad(recovered: &Recovered) -> (i64, Option<i64>) {
    match recovered.health {
        PartitionHealth::Fenced { first_bad, next_good } => (first_bad.0, next_good.map(|o| o.0)),
        ref other => panic!("not fenced: {other:?}"),
    }
}

#[test]
fn row_clean_a_clean_segment_is_served_without_a_write() {
    let (sample, segment) = with_active(|segment| {
        segment.close();
        segment.allocate(10_000);
    });
    sample.recover();
    let before = sample.contents();
    let recovered = sample.recover();
    assert_eq!(sample.contents(), before);
    assert_eq!(active(&recovered).tail, segment.tail);
    assert_eq!(active(&recovered).index, segment.index);
    assert_eq!((recovered.next_offset, recovered.leader_epoch.0), (Offset(120), 0));
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert!(rows(&recovered).is_empty());
}

#[test]
fn row_whole_an_unclean_segment_is_closed_with_the_next_epoch() {
    let (sample, mut segment) = with_active(|segment| segment.append(5, 3, 200));
    segment.allocate(0);
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["whole"]);
    assert_eq!(active(&recovered).tail, segment.tail);
    assert_eq!(active(&recovered).index, segment.index);
    assert_eq!((recovered.next_offset, recovered.leader_epoch.0), (Offset(135), 1));
    assert_eq!(recovered.epochs.latest().map(|e| e.start), Some(Offset(135)));
    assert_eq!(
        sample.disk.read_file(sample.paths.log(Offset(0))).map(|b| b.len() as u64),
        Some(segment.tail.position)
    );
    assert_settled(&sample, &recovered);
}

#[test]
fn row_torn_bytes_above_the_watermark_are_kept_and_cut() {
    let (sample, segment) = with_active(|segment| {
        segment.append(3, 3, 200);
        let cut = segment.bytes.len() - 100;
        segment.bytes.truncate(cut);
        segment.allocate(5000);
    });
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["torn above the watermark"]);
    let (position, offset) = segment.borders[42];
    assert_eq!((active(&recovered).tail.position, recovered.next_offset), (position, offset));
    let kept = sample.disk.read_file(sample.paths.torn(Offset(0), position)).expect("kept");
    let torn = &segment.bytes[position as usize..];
    assert_eq!(kept, &torn[..kept.len()]);
    assert!(torn[kept.len()..].iter().all(|b| *b == 0));
    assert_settled(&sample, &recovered);
}

#[test]
fn row_torn_valid_batches_behind_a_hole_are_torn_too() {
    let (sample, segment) = with_active(|segment| {
        segment.append(4, 3, 200);
        let (from, to) = (segment.borders[41].0 as usize, segment.borders[42].0 as usize);
        segment.bytes[from..to].fill(0);
    });
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["torn above the watermark"]);
    assert_eq!(recovered.log_end, segment.borders[41].1);
    assert_settled(&sample, &recovered);
}

#[test]
fn row_damaged_below_the_watermark_is_fenced_and_not_cut() {
    let (sample, segment) = with_active(|segment| {
        let at = segment.borders[39].0 as usize + 80;
        segment.bytes[at] ^= 1;
        segment.append(2, 3, 200);
    });
    let before = sample.contents();
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["damaged below the watermark"]);
    assert_eq!(first_bad(&recovered), (117, Some(120)));
    assert_eq!(recovered.log_end, segment.tail.next_offset);
    assert_eq!(sample.contents(), before, "nothing was written");
    // Readers find the first good batch behind the damage by an entry of its own.
    let index = &active(&recovered).index;
    assert!(index.entries().iter().any(|e| index.offset_of(e) == Offset(120)));
    assert_settled(&sample, &recovered);
}

#[test]
fn row_damaged_data_goes_on_behind_several_damaged_places() {
    let (sample, segment) = with_active(|segment| {
        for batch in [30, 34] {
            let at = segment.borders[batch].0 as usize + 70;
            segment.bytes[at..at + 9].fill(0);
        }
    });
    // The last good index entry lies behind one of the places: without it everything is read.
    sample.disk.delete_file(sample.paths.index(Offset(0)));
    let recovered = sample.recover();
    assert_eq!(first_bad(&recovered), (90, Some(105)));
    assert_eq!(recovered.log_end, segment.tail.next_offset);
}

#[test]
fn row_damaged_a_file_cut_below_the_watermark_is_fenced() {
    let (sample, segment) = with_active(|segment| {
        let at = segment.borders[38].0 as usize + 10;
        segment.bytes.truncate(at);
    });
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["damaged below the watermark"]);
    assert_eq!(first_bad(&recovered), (114, None));
    assert_eq!(recovered.log_end, segment.tail.next_offset);
    assert_settled(&sample, &recovered);
}

#[test]
fn row_damaged_a_changed_offset_outside_of_the_batch_checksum_is_found() {
    for clean in [false, true] {
        let (sample, _) = with_active(|segment| {
            // Leader epoch of batch 38: only the chain checksum covers it.
            let at = segment.borders[38].0 as usize + 15;
            segment.bytes[at] ^= 1;
            if clean {
                let slot = Slot { generation: segment.slot.generation + 1, ..segment.slot };
                segment.write_slot(slot);
            }
        });
        sample.disk.delete_file(sample.paths.index(Offset(0)));
        let recovered = sample.recover();
        assert_eq!(rows(&recovered), ["damaged below the watermark"]);
        let (bad, _) = first_bad(&recovered);
        assert!(bad <= 117, "{bad}");
    }
}

#[test]
fn row_no_watermark_nothing_is_cut() {
    let (sample, segment) = with_active(|segment| {
        segment.bytes[4096..12_288].fill(0);
        segment.append(1, 3, 200);
        let cut = segment.bytes.len() - 7;
        segment.bytes.truncate(cut);
    });
    let before = sample.contents();
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["no watermark"]);
    assert_eq!(first_bad(&recovered), (segment.borders[40].1.0, None));
    assert_eq!(sample.contents(), before);
}

#[test]
fn row_no_watermark_a_damaged_identity_is_fenced() {
    let (sample, _) = with_active(|segment| segment.bytes[40] ^= 1);
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["no watermark"]);
    assert!(matches!(recovered.health, PartitionHealth::Fenced { .. }));
}

#[test]
fn row_slot_damaged_whole_data_is_closed_and_the_slot_written_again() {
    let (sample, segment) = with_active(|segment| {
        let at = SampleSegment::place(&segment.slot).position() as usize + 30;
        segment.bytes[at] ^= 1;
    });
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["whole, slot damaged"]);
    assert_eq!(recovered.log_end, segment.tail.next_offset);
    let second = assert_settled(&sample, &recovered);
    assert!(rows(&second).is_empty());
}

#[test]
fn row_slot_damaged_nothing_is_cut_while_the_watermark_is_in_doubt() {
    let (sample, segment) = with_active(|segment| {
        let at = SampleSegment::place(&segment.slot).position() as usize + 30;
        segment.bytes[at] ^= 1;
        let at = segment.borders[35].0 as usize + 90;
        segment.bytes[at] ^= 1;
    });
    let before = sample.contents();
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["torn, slot damaged"]);
    assert_eq!(first_bad(&recovered), (segment.borders[35].1.0, None));
    assert_eq!(sample.contents(), before);
}

#[test]
fn row_sealing_interrupted_is_completed() {
    let (mut sample, segment) = with_active(|segment| {
        segment.put_footer();
        segment.allocate(3000);
    });
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["sealing interrupted"]);
    assert!(recovered.active.is_none());
    assert_eq!(recovered.sealed[0].footer.tail, segment.tail);
    assert_eq!((recovered.next_offset, recovered.leader_epoch.0), (Offset(120), 0));
    let file = sample.disk.read_file(sample.paths.log(Offset(0))).expect("file");
    assert_eq!(file.len() as u64, segment.tail.position + FOOTER_BYTES as u64);
    sample.manifest = recovered.manifest.clone();
    assert_settled(&sample, &recovered);
}

#[test]
fn a_torn_footer_is_cut_like_any_torn_tail() {
    let (sample, segment) = with_active(|segment| {
        segment.put_footer();
        let cut = segment.bytes.len() - 20;
        segment.bytes.truncate(cut);
    });
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["torn above the watermark"]);
    assert_eq!(active(&recovered).tail, segment.tail);
}

#[test]
fn offsets_below_the_lease_are_skipped_after_a_power_cut_and_not_after_a_kill() {
    let (sample, segment) = with_active(|segment| {
        let slot =
            Slot { boot_id: [1; 16], generation: segment.slot.generation + 1, ..segment.slot };
        segment.write_slot(slot);
    });
    let recovered = sample.recover();
    assert_eq!(recovered.next_offset, segment.slot.offset_lease);
    assert_eq!(recovered.log_end, segment.tail.next_offset);
    assert!(recovered.findings.iter().any(|f| matches!(f, Finding::OffsetsSkipped { .. })));
    assert_eq!(recovered.epochs.latest().map(|e| e.start), Some(segment.slot.offset_lease));
    assert_settled(&sample, &recovered);
}

#[test]
fn a_damaged_slot_may_have_promised_more_offsets() {
    let (sample, segment) = with_active(|segment| {
        let older = Slot { boot_id: [1; 16], generation: 4, ..segment.slot };
        segment.write_slot(older);
        segment.write_slot(Slot { generation: 5, ..older });
        let at = SampleSegment::place(&segment.slot).position() as usize;
        segment.bytes[at] ^= 1;
    });
    let recovered = sample.recover();
    assert_eq!(recovered.next_offset, segment.slot.offset_lease + OFFSET_LEASE);
}

#[test]
fn appends_after_skipped_offsets_are_found_again() {
    let mut sample = Sample::new();
    let mut segment = sample.segment(0, 0);
    // An empty segment, closed with skipped offsets and the next epoch; then the next process wrote.
    segment.slot.leader_epoch = LeaderEpoch(1);
    segment.append_one(&crate::storage::sample::batch(Offset(1000), 3, 50), Offset(1000));
    segment.append(2, 3, 50);
    segment.sync();
    sample.add_active(&segment);
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert_eq!(active(&recovered).tail, segment.tail);
    assert_eq!(recovered.log_end, Offset(1009));
}

#[test]
fn a_gap_without_a_new_epoch_is_not_the_next_batch() {
    let (sample, segment) = with_active(|segment| {
        segment.append_one(&crate::storage::sample::batch(Offset(500), 3, 50), Offset(500));
    });
    let recovered = sample.recover();
    assert_eq!(rows(&recovered), ["torn above the watermark"]);
    assert_eq!(recovered.log_end, segment.borders[40].1);
}

/// Two sealed segments and an active one.
fn three_segments() -> Sample {
    let mut sample = Sample::new();
    for base in [0, 30] {
        let mut segment = sample.segment(base, 0);
        segment.append(10, 3, 700);
        sample.add_sealed(segment);
    }
    let mut last = sample.segment(60, 0);
    last.append(4, 3, 100);
    last.sync();
    sample.add_active(&last);
    sample
}

#[test]
fn sealed_segments_are_trusted_by_their_footer() {
    let sample = three_segments();
    let recovered = sample.recover();
    let bases: Vec<i64> = recovered.sealed.iter().map(|s| s.base_offset.0).collect();
    assert_eq!(bases, [0, 30]);
    assert_eq!((recovered.log_end, recovered.log_start), (Offset(72), Offset(0)));
    assert_eq!(recovered.epochs.entries().len(), 2);
    assert_settled(&sample, &recovered);
}

#[test]
fn a_sealed_segment_with_a_damaged_footer_is_read_and_served() {
    let sample = three_segments();
    let path = sample.paths.log(Offset(0));
    let mut bytes = sample.disk.read_file(&path).expect("file");
    let at = bytes.len() - 50;
    bytes[at] ^= 1;
    sample.disk.write_file(&path, &bytes);
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert!(recovered.findings.iter().any(|f| matches!(f, Finding::DescriptionDamaged { .. })));
    assert_eq!(recovered.sealed[0].footer.tail.next_offset, Offset(30));
}

#[test]
fn a_sealed_segment_that_lost_its_end_is_fenced_up_to_the_next_segment() {
    let sample = three_segments();
    let path = sample.paths.log(Offset(0));
    let mut bytes = sample.disk.read_file(&path).expect("file");
    bytes.truncate(bytes.len() - 1000);
    sample.disk.write_file(&path, &bytes);
    let recovered = sample.recover();
    assert_eq!(first_bad(&recovered), (27, Some(30)));
    assert_eq!(recovered.log_end, Offset(72));
}

#[test]
fn a_missing_sealed_segment_is_damage() {
    let sample = three_segments();
    sample.disk.delete_file(sample.paths.log(Offset(30)));
    assert_eq!(first_bad(&sample.recover()), (30, Some(60)));
}

#[test]
fn a_missing_active_segment_is_damage() {
    let sample = three_segments();
    sample.disk.delete_file(sample.paths.log(Offset(60)));
    let recovered = sample.recover();
    assert_eq!(first_bad(&recovered), (60, None));
    assert_eq!(recovered.next_offset, Offset(60));
}

#[test]
fn a_swapped_segment_is_damage() {
    let sample = three_segments();
    let (a, b) = (sample.paths.log(Offset(0)), sample.paths.log(Offset(30)));
    let bytes = sample.disk.read_file(&a).expect("file");
    sample.disk.write_file(&a, &sample.disk.read_file(&b).expect("file"));
    sample.disk.write_file(&b, &bytes);
    assert_eq!(first_bad(&sample.recover()), (0, Some(60)));
}

#[test]
fn a_damaged_manifest_fences_and_everything_stays_readable() {
    for bytes in [None, Some(vec![]), Some(vec![7; 300])] {
        let sample = three_segments();
        match bytes {
            Some(bytes) => sample.disk.write_file(sample.paths.manifest(), &bytes),
            None => sample.disk.delete_file(sample.paths.manifest()),
        };
        let before = sample.contents();
        let recovered = sample.recover();
        assert_eq!(first_bad(&recovered), (72, None));
        assert_eq!(recovered.sealed.len(), 2);
        assert_eq!(recovered.log_end, Offset(72));
        assert!(recovered.findings.iter().any(|f| matches!(f, Finding::ManifestDamaged(_))));
        assert_eq!(sample.contents(), before);
    }
}

#[test]
fn a_missing_directory_is_empty_only_while_it_is_not_known() {
    let sample = Sample::new();
    let mut context = sample.context();
    assert_eq!(first_bad(&sample.recover()), (0, None));
    context.materialised = Materialised::Unknown;
    let recovered = recover_partition(&sample.disk, &sample.paths, &context).expect("recovers");
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert_eq!(recovered.next_offset, Offset(0));
}

#[test]
fn a_creation_is_taken_back_and_its_base_never_goes_back() {
    for leave_file in [false, true] {
        let mut sample = Sample::new();
        let mut segment = sample.segment(0, 0);
        segment.append(3, 3, 100);
        sample.add_sealed(segment);
        sample.manifest.creating(Offset(500));
        sample.write_manifest();
        if leave_file {
            let blank = sample.segment(500, 0);
            sample.disk.write_file(sample.paths.log(Offset(500)), &blank.bytes[..9000]);
        }
        let recovered = sample.recover();
        assert_eq!(recovered.health, PartitionHealth::Writable);
        assert_eq!((recovered.next_offset, recovered.log_end), (Offset(500), Offset(9)));
        assert!(sample.disk.read_file(sample.paths.log(Offset(500))).is_none());
        assert_settled(&sample, &recovered);
    }
}

#[test]
fn a_creation_that_holds_data_is_set_aside() {
    let mut sample = Sample::new();
    let mut segment = sample.segment(0, 0);
    segment.append(3, 3, 100);
    sample.put(&segment);
    sample.manifest.creating(Offset(0));
    sample.write_manifest();
    let recovered = sample.recover();
    assert!(recovered.findings.iter().any(|f| matches!(f, Finding::Quarantined { .. })));
    let name = "00000000000000000000.log";
    let kept = sample.disk.read_file(sample.paths.quarantine(name)).expect("kept");
    assert_eq!(kept, segment.bytes);
    assert_settled(&sample, &recovered);
}

#[test]
fn a_deletion_is_completed() {
    let mut sample = three_segments();
    sample.manifest.trim(Offset(40));
    sample.write_manifest();
    let recovered = sample.recover();
    assert_eq!((recovered.log_start, recovered.sealed.len()), (Offset(40), 1));
    assert!(sample.disk.read_file(sample.paths.log(Offset(0))).is_none());
    assert!(sample.disk.read_file(sample.paths.index(Offset(0))).is_none());
    assert_settled(&sample, &recovered);
}

#[test]
fn what_nothing_explains_is_set_aside_and_left_overs_go() {
    let sample = three_segments();
    let dir = sample.paths.dir().to_path_buf();
    sample.disk.write_file(sample.paths.log(Offset(7)), b"whose is this?");
    sample.disk.write_file(dir.join("notes.txt"), b"mine");
    sample.disk.write_file(dir.join("epochs.tmp"), b"half");
    sample.disk.write_file(sample.paths.index(Offset(7)), b"cache of nothing");
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    let names: Vec<String> = sample.contents().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("quarantine/")).count(), 2);
    assert!(!names.iter().any(|name| name.ends_with(".tmp") || name.ends_with("7.idx")));
    assert_settled(&sample, &recovered);
}

#[test]
fn a_bad_index_is_made_again_and_costs_nothing_else() {
    for damage in ["missing", "flipped", "stale", "beyond"] {
        let (sample, segment) = with_active(|_| {});
        let path = sample.paths.index(Offset(0));
        let mut bytes = segment.index.encode(segment.slot.tag);
        match damage {
            "flipped" => bytes[20] ^= 1,
            "stale" => bytes = segment.index.encode(segment.slot.tag ^ 1),
            "beyond" => {
                let mut index = segment.index.clone();
                let mut tail = segment.tail;
                tail.position += INDEX_INTERVAL_BYTES;
                index.push(&tail, tail.next_offset + 5);
                bytes = index.encode(segment.slot.tag);
            }
            _ => bytes.clear(),
        }
        sample.disk.write_file(&path, &bytes);
        let recovered = sample.recover();
        assert_eq!(recovered.health, PartitionHealth::Writable, "{damage}");
        assert_eq!(active(&recovered).index, segment.index, "{damage}");
        assert_settled(&sample, &recovered);
    }
}

#[test]
fn an_index_that_leads_astray_is_not_followed() {
    let (sample, segment) = with_active(|_| {});
    let mut wrong = Index::new(Offset(0));
    let mut tail = segment.tail;
    tail.position = segment.borders[39].0 - 13;
    wrong.push(&tail, Offset(110));
    sample.disk.write_file(sample.paths.index(Offset(0)), &wrong.encode(segment.slot.tag));
    let recovered = sample.recover();
    assert_eq!(recovered.health, PartitionHealth::Writable);
    assert_eq!(active(&recovered).index, segment.index);
    assert_settled(&sample, &recovered);
}

#[test]
fn producers_come_from_the_newest_valid_snapshot_and_the_batches_behind_it() {
    let mut sample = Sample::new();
    let mut segment = sample.segment(0, 0);
    let mut state = ProducerState::new(ProducerLimits::default());
    let mut at_ten = None;
    for sequence in (0..20).step_by(2) {
        let batch = producer_batch(segment.tail.next_offset, 9, sequence);
        let header = batch.stamped(segment.tail.next_offset, LeaderEpoch(0), None);
        segment.append_one(&batch, segment.tail.next_offset);
        state.record(&header, NOW);
        if segment.tail.next_offset == Offset(10) {
            at_ten = Some(state.clone());
        }
    }
    segment.sync();
    sample.add_active(&segment);
    let id = sample.paths.id();
    let bytes = encode_snapshot(&at_ten.expect("passed"), id, Offset(10));
    sample.disk.write_file(sample.paths.snapshot(Offset(10)), &bytes);
    let mut bad = encode_snapshot(&state, id, Offset(14));
    bad[60] ^= 1;
    sample.disk.write_file(sample.paths.snapshot(Offset(14)), &bad);
    let above = encode_snapshot(&state, id, Offset(99));
    sample.disk.write_file(sample.paths.snapshot(Offset(99)), &above);
    let recovered = sample.recover();
    assert_eq!(recovered.producers, state);
    assert_eq!(recovered.snapshots, [Offset(10)]);
    assert!(sample.disk.read_file(sample.paths.snapshot(Offset(99))).is_none());
    let again = producer_batch(Offset(0), 9, 18);
    let check = recovered.producers.check(again.header(), NOW);
    assert!(matches!(check, ProducerCheck::Duplicate(b) if b.base_offset == Offset(18)));
    assert_settled(&sample, &recovered);
}

#[test]
fn lost_epochs_are_made_from_the_segments() {
    let mut sample = Sample::new();
    for (base, epoch) in [(0, 0), (30, 2)] {
        let mut segment = sample.segment(base, epoch);
        segment.append(10, 3, 100);
        sample.add_sealed(segment);
    }
    let mut last = sample.segment(60, 5);
    last.append(1, 3, 100);
    last.close();
    sample.add_active(&last);
    let recovered = sample.recover();
    let epochs: Vec<(i32, i64)> =
        recovered.epochs.entries().iter().map(|e| (e.epoch.0, e.start.0)).collect();
    assert_eq!(epochs, [(0, 0), (2, 30), (5, 60)]);
    assert_settled(&sample, &recovered);
}

#[test]
fn without_space_nothing_is_cut_and_reads_go_on() {
    let (sample, segment) = with_active(|segment| {
        segment.append(3, 3, 200);
        let cut = segment.bytes.len() - 100;
        segment.bytes.truncate(cut);
    });
    let before = sample.contents();
    let used: u64 = sample.disk.files().iter().map(|(_, len)| *len).sum();
    sample.disk.set_capacity(used);
    let result = recover_partition(&sample.disk, &sample.paths, &sample.context());
    assert!(matches!(result, Err(RecoverError::NoSpace(_))), "{result:?}");
    let context = RecoveryContext { access: Access::ReadOnly, ..sample.context() };
    let recovered = recover_partition(&sample.disk, &sample.paths, &context).expect("opens");
    assert!(matches!(recovered.health, PartitionHealth::ReadOnly { .. }));
    assert_eq!(recovered.log_end, segment.borders[42].1);
    let logs = |contents: &[(String, Vec<u8>)]| {
        contents.iter().filter(|(name, _)| name.ends_with(".log")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(logs(&sample.contents()), logs(&before));
}

/// A partition with everything that recovery writes about: torn bytes, a creation, a deletion.
fn busy() -> Sample {
    let mut sample = three_segments();
    let mut last = sample.segment(60, 0);
    last.append(4, 3, 100);
    last.sync();
    last.append(3, 3, 300);
    let cut = last.bytes.len() - 40;
    last.bytes.truncate(cut);
    last.allocate(4096);
    sample.disk.write_file(sample.paths.log(Offset(60)), &last.bytes);
    sample.manifest.trim(Offset(31));
    sample.write_manifest();
    sample.disk.write_file(sample.paths.log(Offset(7)), b"unlisted");
    sample
}

#[test]
fn a_crash_at_any_operation_of_recovery_leads_to_the_same_end() {
    let sample = busy();
    let start = sample.disk.fork();
    let expected = sample.recover();
    let total = sample.disk.ops() - start.ops();
    let mut images = 0;
    for op in 1..=total {
        for seed in 0..8 {
            let again = Sample {
                disk: start.fork(),
                paths: sample.paths.clone(),
                manifest: sample.manifest.clone(),
            };
            again.disk.fail_from(op, Fault::Eio);
            let interrupted = recover_partition(&again.disk, &again.paths, &again.context());
            if op < total {
                assert!(interrupted.is_err() || again.disk.struck().is_some());
            }
            let crash = Crash { bias: Bias::Random, seed: op * 100 + seed };
            let after = Sample { disk: again.disk.crash(crash), ..again };
            // The data was durable before; only the boot differs, so offsets may be skipped.
            let recovered = after.recover();
            assert_eq!(recovered.log_end, expected.log_end, "op {op} seed {seed}");
            assert_eq!(recovered.log_start, expected.log_start);
            assert_eq!(recovered.health, PartitionHealth::Writable);
            assert!(recovered.next_offset >= expected.log_end);
            assert_settled(&after, &recovered);
            images += 1;
        }
    }
    assert!(images > 100, "{images}");
}

#[test]
fn any_flipped_bit_below_the_watermark_is_noticed() {
    let (sample, segment) = with_active(|_| {});
    let path = sample.paths.log(Offset(0));
    sample.disk.delete_file(sample.paths.index(Offset(0)));
    let start = sample.disk.fork();
    for position in (16_384..segment.tail.position).step_by(7) {
        let again = Sample {
            disk: start.fork(),
            paths: sample.paths.clone(),
            manifest: sample.manifest.clone(),
        };
        again.disk.flip_bit(&path, position, (position % 8) as u32);
        let recovered = again.recover();
        let (bad, next) = first_bad(&recovered);
        let batch = segment.borders.iter().rposition(|(at, _)| *at <= position).expect("a batch");
        let (from, to) = (segment.borders[batch].1.0, segment.borders[batch + 1].1.0);
        assert!(bad <= from && next.is_none_or(|next| next >= to), "position {position}");
    }
}
