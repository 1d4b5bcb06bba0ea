//! The coordinator as a whole: the rules of `mod.rs` under random joins, leaves, silences, lost
//! answers, slow revocations, topic changes and rounds that could not be stored.

mod rules;
mod world;

use proptest::prelude::*;

use world::{Op, World};

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let client = 0..5usize;
    let topic = 0..3usize;
    let op = prop_oneof![
        3 => (client.clone(), 1..8u8, any::<bool>()).prop_map(|(client, topics, named)| Op::Start { client, topics, named }),
        12 => client.clone().prop_map(|client| Op::Beat { client }),
        3 => proptest::collection::vec(client.clone(), 2..5).prop_map(|clients| Op::BeatTogether { clients }),
        2 => client.clone().prop_map(|client| Op::AnswerLost { client }),
        2 => client.clone().prop_map(|client| Op::NotStored { client }),
        1 => (client.clone(), 1..4usize).prop_map(|(client, records)| Op::HalfStored { client, records }),
        2 => client.clone().prop_map(|client| Op::LetGo { client }),
        1 => client.clone().prop_map(|client| Op::Leave { client }),
        1 => client.clone().prop_map(|client| Op::Crash { client }),
        1 => (client, 1..8u8).prop_map(|(client, topics)| Op::Resubscribe { client, topics }),
        2 => (100..6_000u64).prop_map(|ms| Op::Pass { ms }),
        1 => (topic.clone(), 1..9u32).prop_map(|(topic, partitions)| Op::Grow { topic, partitions }),
        1 => topic.prop_map(|topic| Op::Delete { topic }),
        1 => Just(Op::Restart),
    ];
    proptest::collection::vec(op, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_has_two_owners_and_all_have_one_when_quiet(ops in ops()) {
        let mut world = World::new(7);
        for op in &ops {
            world.run(op);
            world.check();
        }
        world.become_quiet();
        world.check();
        world.check_everything_is_assigned();
        world.check_replay();
    }

    #[test]
    fn the_same_requests_give_the_same_records(ops in ops()) {
        let mut logs = Vec::new();
        for _ in 0..2 {
            let mut world = World::new(11);
            ops.iter().for_each(|op| world.run(op));
            logs.push(world.log);
        }
        prop_assert_eq!(&logs[0], &logs[1]);
    }
}
