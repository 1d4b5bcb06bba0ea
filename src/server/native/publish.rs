//! PRODUCE and the publishers whose grants it counts against.
//!
//! A batch goes to the broker on the connection's own task and its ack comes back from a log
//! writer's thread, straight into the outbox: no task, no channel, two small allocations a batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::error::{ProduceRefusal, invalid, no_topic};
use super::link::Link;
use crate::broker::flow::{
    AfterViolation, BacklogClaim, Cause, ConnectionFlow, Grant, HeaderTicket, Numbers, Party,
    PublisherGrant, Standing, Violation, Wake, in_time,
};
use crate::broker::{ProduceDone, ProduceError, ProduceRequest, Produced, Topic};
use crate::protocol::native::{
    ErrorAnswer, Frame, FrameType, encode_answer, encode_error, encode_notice, grant, produce,
    publisher_close, publisher_open, pushback, want,
};
use crate::server::in_flight::Underway;
use crate::types::{Acks, Class, ErrorCode, Pushback, TopicPartition};

/// The publishers of one connection, by number.
pub(super) struct Publishers {
    open: HashMap<u32, Arc<Publisher>>,
    next: u32,
    max: usize,
}

/// One publisher.
struct Publisher {
    link: Arc<Link>,
    number: u32,
    topic: Arc<Topic>,
    class: Class,
    grant: Mutex<PublisherGrant>,
    /// What it was promised of the room that the topic's backlog limits leave.
    backlog: BacklogClaim,
    /// Told of when it waits or is refused.
    party: Option<Arc<Party>>,
}

impl Publishers {
    pub(super) fn new(link: &Link) -> Publishers {
        Publishers { open: HashMap::new(), next: 1, max: link.shared.options.publishers_max }
    }

    pub(super) fn open(
        &mut self,
        link: &Arc<Link>,
        request: &publisher_open::Request,
    ) -> Result<publisher_open::Response, ErrorAnswer> {
        let broker = link.broker();
        let topic = broker.topic_by_id(request.topic).ok_or_else(|| no_topic(request.topic))?;
        if self.open.len() >= self.max {
            let message = format!("{} publishers are open on this connection", self.max);
            return Err(ErrorAnswer::new(ErrorCode::TooManyRequests, message));
        }
        let number = self.next;
        self.next += 1;
        let now = broker.monotonic();
        let party = |flow: &ConnectionFlow| flow.parties().publisher(topic.name().as_str(), now);
        let party = link.flow().map(party);
        let publisher = Arc::new_cyclic(|this: &Weak<Publisher>| {
            let grant = broker.open_publisher(&topic, link.flow(), request.class, this.clone());
            let class = grant.seat().class();
            let (link, grant) = (Arc::clone(link), Mutex::new(grant));
            let (topic, backlog) = (Arc::clone(&topic), topic.backlog_claim());
            Publisher { link, number, topic, class, grant, backlog, party }
        });
        let nothing = Grant { bytes_to: 0, ttl_ms: 0, cause: Cause::Grant };
        let grant = publisher.frame(publisher.poll(now).unwrap_or(nothing));
        self.open.insert(number, publisher);
        Ok(publisher_open::Response { grant, allowance_bytes: topic.config().max_message_bytes })
    }

    pub(super) fn close(
        &mut self,
        request: &publisher_close::Request,
    ) -> Result<publisher_close::Response, ErrorAnswer> {
        let closed = self.open.remove(&request.publisher);
        closed.map(|_| publisher_close::Response {}).ok_or_else(|| unknown(request.publisher))
    }

    /// A blocked publisher asks: it is told what it may send, even when that is what it knows.
    pub(super) fn want(&self, link: &Link, frame: &Frame) {
        let Ok(want) = frame.decode::<want::Request>() else { return };
        let Some(publisher) = self.open.get(&want.publisher) else { return };
        let now = link.broker().monotonic();
        publisher.lock().wants(now);
        let told = publisher.tell_offer(now);
        if let (Some(Told { moved: false, cause }), Some(party)) = (told, &publisher.party) {
            // Said again each second for as long as it waits.
            let by =
                link.broker().flow().held_by(publisher.lock().seat(), &publisher.backlog, cause);
            party.refused(by, Numbers::default(), now);
        }
    }
}

/// What a publisher was told.
struct Told {
    /// Whether it may send more than before.
    moved: bool,
    /// What set the size of its grant.
    cause: Cause,
}

impl Publisher {
    fn poll(&self, now: Duration) -> Option<Grant> {
        let mut grant = self.lock();
        let offer = self.link.broker().flow().offer(grant.seat());
        let offer = self.topic.limit_offer(offer, grant.outstanding(), now);
        let offer = self.backlog.limit(offer, grant.outstanding());
        let told = grant.poll(now, offer);
        self.backlog.promise(grant.unspent());
        told
    }

    fn received(&self, bytes: u64, now: Duration) -> Result<Standing, Violation> {
        let mut grant = self.lock();
        let standing = grant.received(bytes, now);
        self.backlog.promise(grant.unspent());
        standing
    }

    /// Sends it a grant when one is due.
    fn tell_offer(&self, now: Duration) -> Option<Told> {
        let before = self.lock().bytes_to();
        let grant = self.poll(now)?;
        let moved = grant.bytes_to > before;
        self.link.notice(0, &self.frame(grant));
        if moved {
            self.admitted(now, now);
        }
        Some(Told { moved, cause: grant.cause })
    }

    /// It may go on: what came at `since` was admitted.
    fn admitted(&self, since: Duration, now: Duration) {
        if let Some(party) = &self.party {
            party.admitted(since, now);
        }
    }

    fn frame(&self, grant: Grant) -> grant::Request {
        grant::Request {
            publisher: self.number,
            epoch: 0,
            bytes_to: grant.bytes_to,
            ttl_ms: grant.ttl_ms,
            cause: grant.cause,
            name: match grant.cause {
                Cause::Backlog => self.backlog.group().unwrap_or_default(),
                _ => String::new(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, PublisherGrant> {
        // Counters; a panic between two of them is a defect that ends the connection.
        self.grant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Publisher {
    fn offer_changed(&self, now: Duration) {
        self.tell_offer(now);
    }
}

fn unknown(publisher: u32) -> ErrorAnswer {
    invalid(format!("publisher {publisher} is not open"))
}

/// What came of a batch.
pub(super) enum Batch {
    /// All of it.
    Whole {
        /// What its header took, when that came before its body.
        header: Option<HeaderTicket>,
    },
    /// Its header was refused, and it was dropped as it came: for grants it was sent all the same.
    Dropped {
        /// Its bytes.
        bytes: u32,
        /// Why.
        refusal: Pushback,
    },
}

impl Batch {
    /// The batch of a whole frame, refused.
    pub(super) fn refused(frame: &Frame, refusal: Pushback) -> Batch {
        Batch::Dropped { bytes: u32::try_from(frame.data.len()).unwrap_or(u32::MAX), refusal }
    }
}

/// Hands one batch to the broker, or says why it was dropped.
pub(super) fn produce(link: &Arc<Link>, publishers: &mut Publishers, frame: Frame, batch: Batch) {
    let refuse = |error: ErrorAnswer| link.refuse(FrameType::Produce, frame.correlation, &error);
    let request: produce::Request = match frame.decode() {
        Ok(request) => request,
        Err(error) => return refuse(error.into()),
    };
    let publisher = match request.publisher {
        0 => None,
        number => match publishers.open.get(&number).filter(|p| p.topic.id() == request.topic) {
            Some(publisher) => Some(Arc::clone(publisher)),
            None => return refuse(unknown(number)),
        },
    };
    let (bytes, header, refusal) = match batch {
        Batch::Whole { header } => (frame.data.len() as u64, header, None),
        Batch::Dropped { bytes, refusal } => (u64::from(bytes), None, Some(refusal)),
    };
    let now = link.broker().monotonic();
    let class = match &publisher {
        Some(publisher) => publisher.class,
        None => link.flow().map_or(Class::Normal, |flow| flow.class(Class::Normal, now)),
    };
    let standing = publisher.as_ref().map(|publisher| publisher.received(bytes, now));
    let (standing, violation) = match standing {
        Some(Ok(standing)) => (Some(standing), None),
        Some(Err(violation)) => (None, Some(violation)),
        None => (None, None),
    };
    if violation.as_ref().is_some_and(|violation| violation.then == AfterViolation::Close) {
        publishers.open.remove(&request.publisher);
    }
    let ack = Ack(Some(Pending {
        link: Arc::clone(link),
        correlation: frame.correlation,
        partition: TopicPartition { topic: request.topic, partition: request.partition },
        silent: request.acks == Acks::None,
        publisher,
        bytes,
        since: now,
        _underway: link.in_flight.begin(),
    }));
    let deadline = Duration::from_millis(u64::from(request.deadline_ms));
    let deadline = Some(deadline).filter(|deadline| !deadline.is_zero());
    let refusal = refusal.map(|refusal| in_time(refusal, deadline));
    let refusal = violation.map(|violation| violation.pushback).or(refusal);
    if let Some(pushback) = refusal {
        return Box::new(ack).done(Err(ProduceError::Pushback(pushback)));
    }
    let request = ProduceRequest {
        topic: request.topic,
        partition: request.partition,
        batch: frame.data,
        acks: request.acks,
        deadline,
        connection: link.flow().cloned(),
        class,
        standing,
    };
    link.broker().produce_more(request, header, Box::new(ack));
}

/// Where a batch's outcome goes; answers even when it is dropped.
struct Ack(Option<Pending>);

struct Pending {
    link: Arc<Link>,
    correlation: u64,
    partition: TopicPartition,
    /// `acks = none`: only a refusal is told, as news.
    silent: bool,
    publisher: Option<Arc<Publisher>>,
    bytes: u64,
    since: Duration,
    _underway: Underway,
}

impl ProduceDone for Ack {
    fn done(mut self: Box<Self>, outcome: Result<Produced, ProduceError>) {
        if let Some(pending) = self.0.take() {
            pending.finish(outcome);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(pending) = self.0.take() {
            pending.finish(Err(ProduceError::Closed));
        }
    }
}

impl Pending {
    fn finish(self, outcome: Result<Produced, ProduceError>) {
        let now = self.link.broker().monotonic();
        let grant = self.publisher.as_ref().and_then(|publisher| {
            publisher.lock().answered(self.bytes);
            publisher.poll(now).map(|grant| publisher.frame(grant))
        });
        self.note(&outcome, now);
        let refusal = outcome.map_err(ProduceRefusal::from);
        if self.silent && grant.is_none() && !matches!(refusal, Err(ProduceRefusal::Pushback(_))) {
            return;
        }
        let written = refusal.is_ok();
        let encode = |out: &mut Vec<u8>| {
            match refusal {
                Ok(_) | Err(ProduceRefusal::Error(_)) if self.silent => {}
                Ok(produced) => {
                    encode_answer::<produce::Request>(out, self.correlation, &answer(&produced));
                }
                Err(ProduceRefusal::Error(error)) => {
                    encode_error(out, FrameType::Produce, self.correlation, &error);
                }
                Err(ProduceRefusal::Pushback(pushback)) => {
                    let correlation = if self.silent { 0 } else { self.correlation };
                    encode_notice(out, correlation, &self.pushback(pushback));
                }
            }
            if let Some(grant) = grant {
                encode_notice(out, 0, &grant);
            }
        };
        if !written {
            self.link.outbox.reply(encode);
        } else if self.link.outbox.add(encode) {
            // Written: this is a log writer's round.
            self.link.shared.acks.wait(&self.link);
        }
    }

    /// Tells of its publisher whether it is limited.
    fn note(&self, outcome: &Result<Produced, ProduceError>, now: Duration) {
        let Some(parties) = self.link.flow().map(ConnectionFlow::parties) else { return };
        match (outcome, &self.publisher) {
            (Ok(_), Some(publisher)) => publisher.admitted(self.since, now),
            (Ok(_), None) => parties.admitted_directly(self.since, now),
            (Err(ProduceError::Pushback(told)), Some(publisher)) => {
                if let Some(party) = &publisher.party {
                    parties.refused(party, told, now);
                }
            }
            (Err(ProduceError::Pushback(told)), None) => {
                let topic = self.link.broker().topic_by_id(self.partition.topic);
                if let Some(topic) = topic {
                    parties.refused_directly(topic.name().as_str(), told, now);
                }
            }
            (Err(_), _) => {}
        }
    }

    fn pushback(&self, pushback: Pushback) -> pushback::Request {
        pushback::Request {
            publisher: self.publisher.as_ref().map_or(0, |publisher| publisher.number),
            partition: Some(self.partition),
            pushback,
        }
    }
}

fn answer(produced: &Produced) -> produce::Response {
    produce::Response {
        base_offset: Some(produced.base_offset),
        append_time: produced.append_time,
        level: produced.level,
        duplicate: produced.duplicate,
    }
}
