//! Rules of idempotence, one test each.

use super::*;
use crate::record::{BatchBuilder, BuilderOptions, ProducerStamp, RecordRef};

const NOW: Timestamp = Timestamp(1_000_000);

/// The stored header of a batch.
fn header(id: i64, epoch: i16, base_sequence: i32, records: i32, base_offset: i64) -> BatchHeader {
    let producer = ProducerStamp { id: ProducerId(id), epoch: ProducerEpoch(epoch), base_sequence };
    let mut builder =
        BatchBuilder::new(BuilderOptions { producer: Some(producer), ..BuilderOptions::default() });
    for _ in 0..records {
        builder.push(&RecordRef { timestamp: NOW, ..RecordRef::default() }).expect("room");
    }
    let header = BatchHeader::read(&builder.build()).expect("a batch");
    BatchHeader { base_offset: Offset(base_offset), ..header }
}

fn state() -> ProducerState {
    ProducerState::new(ProducerLimits { producers_max: 3, idle_ms: 1000 })
}

#[test]
fn the_next_sequence_is_accepted_and_a_repeat_gets_its_offset() {
    let mut state = state();
    let mut offset = 0;
    for sequence in (0..40).step_by(4) {
        let batch = header(1, 0, sequence, 4, offset);
        assert_eq!(state.check(&batch, NOW), ProducerCheck::Accept);
        state.record(&batch, NOW);
        offset += 4;
    }
    for (sequence, offset) in [(20, 20), (36, 36)] {
        let again = state.check(&header(1, 0, sequence, 4, 999), NOW);
        let ProducerCheck::Duplicate(batch) = again else { panic!("{again:?}") };
        assert_eq!((batch.base_offset, batch.last_offset()), (Offset(offset), Offset(offset + 3)));
    }
}

#[test]
fn a_repeat_older_than_five_batches_is_not_out_of_order() {
    let mut state = state();
    for sequence in 0..6 {
        state.record(&header(1, 0, sequence, 1, sequence.into()), NOW);
    }
    assert_eq!(state.check(&header(1, 0, 0, 1, 0), NOW), ProducerCheck::DuplicateUnknown);
}

#[test]
fn a_skipped_sequence_is_out_of_order() {
    let mut state = state();
    state.record(&header(1, 0, 0, 4, 0), NOW);
    let out = |expected, found| ProducerCheck::OutOfOrder { expected, found };
    assert_eq!(state.check(&header(1, 0, 5, 1, 0), NOW), out(4, 5));
    // Cut differently the second time: neither a repeat nor the next.
    assert_eq!(state.check(&header(1, 0, 2, 4, 0), NOW), out(4, 2));
}

#[test]
fn a_newer_epoch_fences_the_older_and_starts_at_zero() {
    let mut state = state();
    state.record(&header(1, 3, 0, 4, 0), NOW);
    let fenced = ProducerCheck::Fenced { current: ProducerEpoch(3), found: ProducerEpoch(2) };
    assert_eq!(state.check(&header(1, 2, 4, 1, 0), NOW), fenced);
    assert!(matches!(
        state.check(&header(1, 4, 4, 1, 0), NOW),
        ProducerCheck::OutOfOrder { expected: 0, found: 4 }
    ));
    let first = header(1, 4, 0, 1, 4);
    assert_eq!(state.check(&first, NOW), ProducerCheck::Accept);
    state.record(&first, NOW);
    let (_, producer) = state.iter().next().expect("one producer");
    assert_eq!((producer.epoch, producer.recent().len()), (ProducerEpoch(4), 1));
}

#[test]
fn sequences_go_round() {
    let mut state = state();
    state.record(&header(1, 0, i32::MAX - 1, 2, 0), NOW);
    assert_eq!(state.check(&header(1, 0, 0, 1, 2), NOW), ProducerCheck::Accept);
    let across = header(2, 0, i32::MAX, 3, 2);
    state.record(&across, NOW);
    assert_eq!(state.check(&header(2, 0, 2, 1, 5), NOW), ProducerCheck::Accept);
    let ProducerCheck::Duplicate(batch) = state.check(&across, NOW) else { panic!("a repeat") };
    assert_eq!(batch.last_offset(), Offset(4));
    // Two batches later the first sequences of the circle are older, not newer.
    for sequence in [2, 3, 4, 5, 6, 7] {
        state.record(&header(2, 0, sequence, 1, 10), NOW);
    }
    assert_eq!(state.check(&across, NOW), ProducerCheck::DuplicateUnknown);
}

#[test]
fn a_batch_without_a_producer_leaves_no_trace() {
    let mut state = state();
    let plain = BatchHeader { producer_id: ProducerId::NONE, ..header(1, 0, 0, 1, 0) };
    assert_eq!(state.check(&plain, NOW), ProducerCheck::Accept);
    assert!(state.record(&plain, NOW).is_none());
    assert!(state.is_empty());
}

#[test]
fn a_forgotten_producer_is_accepted_with_any_sequence() {
    let mut state = state();
    for id in 1..=4 {
        state.record(&header(id, 0, 0, 1, 0), NOW);
    }
    assert_eq!(state.len(), 3, "the least recently used went");
    assert_eq!(state.check(&header(1, 0, 1, 1, 0), NOW), ProducerCheck::Accept);
    let later = Timestamp(NOW.0 + 1001);
    assert_eq!(state.check(&header(4, 0, 77, 1, 0), later), ProducerCheck::Accept);
    state.record(&header(4, 0, 77, 1, 9), later);
    assert_eq!(state.check(&header(4, 0, 78, 1, 0), later), ProducerCheck::Accept);
    state.expire(later);
    assert_eq!(state.len(), 1);
}

#[test]
fn undo_leaves_the_state_as_it_was() {
    let mut state = state();
    for id in 1..=3 {
        state.record(&header(id, 0, 0, 1, 0), NOW);
    }
    let before = state.clone();
    let undos: Vec<Undo> = [(4, 0), (1, 1), (1, 2), (2, 1)]
        .into_iter()
        .filter_map(|(id, sequence)| state.record(&header(id, 0, sequence, 1, 9), NOW))
        .collect();
    assert_ne!(state, before);
    for undo in undos.into_iter().rev() {
        state.undo(undo);
    }
    assert_eq!(state, before);
}

#[test]
fn where_a_tail_was_lost_an_unknown_producer_starts_at_zero() {
    let mut state = state();
    let unknown = header(1, 0, 7, 1, 0);
    assert_eq!(state.check(&unknown, NOW), ProducerCheck::Accept);
    state.record(&header(2, 0, 0, 1, 0), NOW);
    state.tail_is_lost();
    let out = ProducerCheck::OutOfOrder { expected: 0, found: 7 };
    assert_eq!(state.check(&unknown, NOW), out);
    assert_eq!(state.check(&header(1, 0, 0, 1, 0), NOW), ProducerCheck::Accept);
    let idle = Timestamp(NOW.0 + 1_001);
    assert_eq!(state.check(&header(2, 0, 9, 1, 1), idle), ProducerCheck::Accept, "forgotten");
}
