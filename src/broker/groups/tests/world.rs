//! A broker's worth of group state with simulated clients around it. A client holds partitions as
//! a careful real one does: it takes what it is told, gives up what it is no longer told (at once,
//! or only when it is let), and takes itself for expelled after a session without an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::groups::{
    EPOCH_JOIN, EPOCH_LEAVE, GroupError, GroupOptions, GroupRecord, Groups, Heartbeat,
    HeartbeatAnswer, PartitionSet, Round, Sessions, Span, Surroundings, TopicCatalog, TopicShape,
};
use crate::env::{Rng, SeededRng};
use crate::types::{GroupId, Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition};

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A new process; with a static name it takes the place of the one before.
    Start {
        client: usize,
        topics: u8,
        named: bool,
    },
    Beat {
        client: usize,
    },
    BeatTogether {
        clients: Vec<usize>,
    },
    AnswerLost {
        client: usize,
    },
    /// The round is decided but its records cannot be stored.
    NotStored {
        client: usize,
    },
    /// Only the first of its records can.
    HalfStored {
        client: usize,
        records: usize,
    },
    /// A slow client gives up what it was told to.
    LetGo {
        client: usize,
    },
    Leave {
        client: usize,
    },
    Crash {
        client: usize,
    },
    Resubscribe {
        client: usize,
        topics: u8,
    },
    Pass {
        ms: u64,
    },
    Grow {
        topic: usize,
        partitions: u32,
    },
    Delete {
        topic: usize,
    },
    /// The broker starts again: sessions are lost, records are not.
    Restart,
}

#[derive(Default)]
pub(super) struct Topics(pub(super) BTreeMap<TopicName, TopicShape>);

impl TopicCatalog for Topics {
    fn topic(&self, name: &TopicName) -> Option<TopicShape> {
        self.0.get(name).copied()
    }

    fn topic_by_id(&self, id: TopicId) -> Option<(TopicName, u32)> {
        let found = self.0.iter().find(|(_, shape)| shape.id == id);
        found.map(|(name, shape)| (name.clone(), shape.partitions))
    }

    fn span(&self, part: TopicPartition) -> Option<Span> {
        let (_, partitions) = self.topic_by_id(part.topic)?;
        let span = Span { start: Offset(10), end: Offset(100) };
        (part.partition.0 < partitions).then_some(span)
    }
}

pub(super) struct Client {
    pub(super) member_id: Arc<str>,
    pub(super) epoch: i32,
    instance_id: Option<Arc<str>>,
    topics: Vec<TopicName>,
    pub(super) holds: PartitionSet,
    told: PartitionSet,
    /// It gives up only when it is let.
    slow: bool,
    /// When it last sent a heartbeat that was answered.
    heard: Duration,
}

pub(super) struct World {
    pub(super) groups: Groups,
    pub(super) log: Vec<GroupRecord>,
    sessions: Sessions,
    pub(super) topics: Topics,
    options: GroupOptions,
    rng: SeededRng,
    now: Duration,
    pub(super) clients: BTreeMap<usize, Client>,
    topic_ids: u8,
}

pub(super) fn group_id() -> GroupId {
    "readers".parse().expect("valid")
}

fn topic_name(topic: usize) -> TopicName {
    format!("t{topic}").parse().expect("valid")
}

fn wanted(topics: u8) -> Vec<TopicName> {
    (0..3).filter(|bit| topics & (1 << bit) != 0).map(topic_name).collect()
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut world = World {
            groups: Groups::default(),
            log: Vec::new(),
            sessions: Sessions::default(),
            topics: Topics::default(),
            options: GroupOptions::default(),
            rng: SeededRng::new(seed),
            now: Duration::from_secs(1),
            clients: BTreeMap::new(),
            topic_ids: 0,
        };
        world.grow(0, 6);
        world.grow(1, 3);
        world
    }

    pub(super) fn options_mut(&mut self) -> &mut GroupOptions {
        &mut self.options
    }

    /// Decides a round; stores and applies its records unless told to lose them.
    pub(super) fn round<T>(&mut self, stored: bool, decide: impl FnOnce(&mut Round<'_>) -> T) -> T {
        let with = Surroundings {
            options: &self.options,
            topics: &self.topics,
            rng: &self.rng,
            now: self.now,
            time: Timestamp(self.now.as_millis() as i64),
        };
        let mut round = Round::begin(&self.groups, &mut self.sessions, with);
        let answer = decide(&mut round);
        let records = round.finish();
        if stored {
            for record in &records {
                self.groups.apply(record);
            }
            self.log.extend(records);
        }
        answer
    }

    fn store_some(&mut self, records: usize, decide: impl FnOnce(&mut Round<'_>)) {
        let with = Surroundings {
            options: &self.options,
            topics: &self.topics,
            rng: &self.rng,
            now: self.now,
            time: Timestamp(self.now.as_millis() as i64),
        };
        let mut round = Round::begin(&self.groups, &mut self.sessions, with);
        decide(&mut round);
        for record in round.finish().into_iter().take(records) {
            self.groups.apply(&record);
            self.log.push(record);
        }
    }

    pub(super) fn run(&mut self, op: &Op) {
        match op {
            Op::Start { client, topics, named } => self.start(*client, wanted(*topics), *named),
            Op::Beat { client } => self.beat(*client, true),
            Op::BeatTogether { clients } => self.beat_together(clients),
            Op::AnswerLost { client } => {
                if let Some(request) = self.request(*client) {
                    let _ = self.round(true, |round| round.heartbeat(&request));
                }
            }
            Op::NotStored { client } => {
                if let Some(request) = self.request(*client) {
                    let _ = self.round(false, |round| round.heartbeat(&request));
                }
            }
            Op::HalfStored { client, records } => {
                if let Some(request) = self.request(*client) {
                    self.store_some(*records, |round| drop(round.heartbeat(&request)));
                }
            }
            Op::LetGo { client } => self.let_go(*client),
            Op::Leave { client } => self.leave(*client),
            Op::Crash { client } => {
                self.clients.remove(client);
            }
            Op::Resubscribe { client, topics } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.topics = wanted(*topics);
                }
            }
            Op::Pass { ms } => self.pass(Duration::from_millis(*ms)),
            Op::Grow { topic, partitions } => self.grow(*topic, *partitions),
            Op::Delete { topic } => {
                self.topics.0.remove(&topic_name(*topic));
                self.round(true, |round| round.topics_changed());
            }
            Op::Restart => {
                let timeout = self.options.session_timeout();
                self.groups = Groups::restore(&self.groups.snapshot());
                self.sessions = Sessions::adopt(&self.groups, self.now, timeout);
            }
        }
    }

    pub(super) fn start(&mut self, client: usize, topics: Vec<TopicName>, named: bool) {
        let number = self.rng.next_u64();
        let instance_id = named.then(|| Arc::from(format!("instance-{client}")));
        self.clients.insert(
            client,
            Client {
                member_id: format!("m{client}-{number:x}").into(),
                epoch: EPOCH_JOIN,
                instance_id,
                topics,
                holds: PartitionSet::new(),
                told: PartitionSet::new(),
                slow: number.is_multiple_of(3),
                heard: self.now,
            },
        );
    }

    fn request(&self, client: usize) -> Option<Heartbeat> {
        let client = self.clients.get(&client)?;
        Some(Heartbeat {
            group: group_id(),
            member_id: client.member_id.clone(),
            member_epoch: client.epoch,
            instance_id: client.instance_id.clone(),
            client_id: "test".into(),
            client_host: "127.0.0.1".into(),
            rebalance_timeout_ms: 4_000,
            topics: Some(client.topics.clone()),
            assignor: None,
            owned: Some(client.holds.iter().collect()),
        })
    }

    fn beat(&mut self, client: usize, stored: bool) {
        let Some(request) = self.request(client) else { return };
        let sent = self.now;
        let answer = self.round(stored, |round| round.heartbeat(&request));
        self.hear(client, sent, answer);
    }

    fn beat_together(&mut self, clients: &[usize]) {
        let mut requests: Vec<_> =
            clients.iter().filter_map(|c| Some((*c, self.request(*c)?))).collect();
        requests.dedup_by_key(|(client, _)| *client);
        let sent = self.now;
        let answers = self.round(true, |round| {
            let beat = |(client, request): &(usize, Heartbeat)| (*client, round.heartbeat(request));
            requests.iter().map(beat).collect::<BTreeMap<_, _>>()
        });
        for (client, answer) in answers {
            self.hear(client, sent, answer);
        }
    }

    fn hear(&mut self, number: usize, sent: Duration, answer: Result<HeartbeatAnswer, GroupError>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        match answer {
            Ok(answer) => {
                client.heard = sent;
                client.epoch = answer.member_epoch;
                if let Some(assignment) = answer.assignment {
                    client.told = assignment.into_iter().map(|(part, _)| part).collect();
                    let surplus = client.holds.minus(&client.told);
                    client.holds = client.told.clone();
                    if client.slow {
                        client.holds.extend(surplus.iter());
                    }
                }
            }
            Err(GroupError::InstanceFenced { .. }) => {
                self.clients.remove(&number);
            }
            Err(_) => client.start_over(),
        }
    }

    fn let_go(&mut self, client: usize) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.holds = client.holds.and(&client.told);
        }
    }

    fn leave(&mut self, client: usize) {
        let Some(mut request) = self.request(client) else { return };
        self.clients.remove(&client);
        request.member_epoch = EPOCH_LEAVE;
        let _ = self.round(true, |round| round.heartbeat(&request));
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        let timeout = self.options.session_timeout();
        for client in self.clients.values_mut() {
            if self.now - client.heard >= timeout {
                client.start_over();
                client.heard = self.now;
            }
        }
        if self.sessions.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.round(true, |round| round.expire());
        }
    }

    pub(super) fn grow(&mut self, topic: usize, partitions: u32) {
        let ids = &mut self.topic_ids;
        let shape = self.topics.0.entry(topic_name(topic)).or_insert_with(|| {
            *ids += 1;
            TopicShape { id: TopicId::from_bytes([*ids; 16]), partitions: 0 }
        });
        shape.partitions = shape.partitions.max(partitions);
        // No word to the coordinator: heartbeats find out.
    }

    /// Everybody speaks often, nobody is slow, nothing else happens.
    pub(super) fn become_quiet(&mut self) {
        for client in self.clients.values_mut() {
            client.slow = false;
        }
        let numbers: Vec<usize> = self.clients.keys().copied().collect();
        for _ in 0..30 {
            self.pass(Duration::from_millis(500));
            for number in &numbers {
                self.let_go(*number);
                self.beat(*number, true);
            }
        }
    }

    /// What the coordinator takes a member to hold, and what members really do.
    pub(super) fn check(&self) {
        let Some(group) = self.groups.group(&group_id()) else { return };
        let roster = group.roster();
        assert!(roster.target_epoch <= roster.epoch);
        let mut owned = BTreeMap::new();
        for (id, member) in &roster.members {
            assert!(member.assigned.is_disjoint(&member.revoking));
            assert!(member.epoch <= roster.epoch);
            for part in member.assigned.iter().chain(member.revoking.iter()) {
                assert_eq!(owned.insert(part, id.clone()), None, "{part} has two owners");
            }
        }
        assert_eq!(owned, roster.owners);
        for client in self.clients.values() {
            let Some(member) = roster.members.get(&client.member_id) else { continue };
            for part in client.holds.iter() {
                assert!(member.holds(part), "{} holds {part} behind our back", client.member_id);
            }
        }
    }

    pub(super) fn check_everything_is_assigned(&self) {
        let mut wanted: PartitionSet = PartitionSet::new();
        for name in self.clients.values().flat_map(|client| &client.topics) {
            if let Some(shape) = self.topics.topic(name) {
                wanted.extend((0..shape.partitions).map(|number| TopicPartition {
                    topic: shape.id,
                    partition: PartitionId(number),
                }));
            }
        }
        let mut held = PartitionSet::new();
        for client in self.clients.values() {
            for part in client.holds.iter() {
                assert!(held.insert(part), "{part} is held twice");
            }
        }
        assert_eq!(held, wanted);
        let mut clients = self.clients.values();
        let first = clients.next().map(|client| &client.topics);
        if clients.all(|client| Some(&client.topics) == first) {
            let counts = self.clients.values().map(|client| client.holds.len());
            let (least, most) = (counts.clone().min(), counts.max());
            assert!(most.unwrap_or(0) <= least.unwrap_or(0) + 1, "{least:?} {most:?}");
        }
    }

    pub(super) fn check_replay(&self) {
        assert_eq!(Groups::restore(&self.log), self.groups);
        assert_eq!(Groups::restore(&self.groups.snapshot()), self.groups);
    }
}

impl Client {
    fn start_over(&mut self) {
        self.epoch = EPOCH_JOIN;
        self.holds = PartitionSet::new();
        self.told = PartitionSet::new();
    }
}
