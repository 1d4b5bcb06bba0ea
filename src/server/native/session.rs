//! What one connection has said and opened, and which code answers which frame.
//!
//! PRODUCE and everything that needs no waiting is handled at once, in the order it came; every
//! other request is a task of its own, so a long poll holds nothing up.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::drain_notice;
use super::error::invalid;
use super::kinds::{is_free, is_system, is_taken_while_draining};
use super::link::Link;
use super::publish::Publishers;
use super::subscription::Subscriptions;
use super::{SOFTWARE, fetch, groups, info, publish, quotas, topics};
use crate::broker::flow::{Cost, HeaderTicket};
use crate::protocol::native::{
    Call, ErrorAnswer, ErrorDetail, Frame, FrameHeader, FrameLimits, FrameType, Skipped,
    VERSION_MAX, VERSION_MIN, hello, ping,
};
use crate::server::in_flight::Underway;
use crate::types::{ErrorCode, Pushback, PushbackCode, PushbackScope};

/// The state of one connection.
pub(super) struct Session {
    link: Arc<Link>,
    publishers: Publishers,
    subscriptions: Subscriptions,
    jobs: JoinSet<()>,
    requests: Arc<Semaphore>,
    draining: bool,
    /// Batches were handed over that no log writer was woken for.
    unflushed: bool,
}

/// Longest client id in bytes: it is a label in logs and reports.
const CLIENT_ID_BYTES_MAX: usize = 249;
/// When a request that found too many others under way is to be sent again.
const TOO_MANY_RETRY_MS: u32 = 50;

impl Session {
    pub(super) fn new(link: Arc<Link>) -> Session {
        Session {
            publishers: Publishers::new(&link),
            subscriptions: Subscriptions::new(&link),
            jobs: JoinSet::new(),
            requests: Arc::new(Semaphore::new(link.shared.options.requests_max)),
            draining: false,
            unflushed: false,
            link,
        }
    }

    /// Decides about a large frame by its header: what it takes while it is received, or why its
    /// data part is dropped. `None` = nothing counts it: produce pressure refuses produce alone.
    pub(super) fn announced(&self, header: &FrameHeader) -> Option<Result<HeaderTicket, Pushback>> {
        let flow = self.link.flow()?;
        let kind = FrameType::from_u16(header.frame_type);
        let is_batch = kind == Some(FrameType::Produce) && !header.flags.is_answer();
        if let Some(refusal) = self.link.refusal()
            && !kind.is_some_and(is_system)
        {
            return Some(Err(refusal.clone()));
        }
        if !is_batch {
            // Data where none belongs is not kept until it is refused for that.
            return (header.data_bytes > 0).then(|| Err(meaningless_data(header)));
        }
        if self.draining {
            return Some(Err(Pushback::draining()));
        }
        Some(self.link.broker().admit_header(flow, u64::from(header.data_bytes)))
    }

    /// Takes a frame whose data part was dropped; `false` = the connection ends.
    pub(super) fn take_skipped(&mut self, skipped: Skipped, refusal: Pushback) -> bool {
        let Skipped { frame, data_bytes } = skipped;
        if frame.flags.is_answer() {
            return true; // nonsense without effect
        }
        if frame.frame_type == FrameType::Produce && self.link.refusal().is_none() {
            let batch = publish::Batch::Dropped { bytes: data_bytes, refusal };
            publish::produce(&self.link, &mut self.publishers, frame, batch);
            return true;
        }
        self.link.refuse(frame.frame_type, frame.correlation, &refusal.into());
        self.link.refusal().is_none()
    }

    /// Takes one frame, with what its header took; `false` = the connection ends.
    pub(super) fn take(&mut self, frame: Frame, header: Option<HeaderTicket>) -> bool {
        if !self.link.is_greeted() {
            return self.greet(&frame);
        }
        if frame.flags.is_answer() {
            return true; // the answer to a PING of ours, or nonsense without effect
        }
        if let Some(refusal) = self.link.refusal()
            && !is_system(frame.frame_type)
        {
            self.link.refuse(frame.frame_type, frame.correlation, &refusal.clone().into());
            return false;
        }
        self.reap();
        if self.draining && !is_taken_while_draining(frame.frame_type) {
            self.link.refuse(frame.frame_type, frame.correlation, &Pushback::draining().into());
            return true;
        }
        self.dispatch(frame, header);
        true
    }

    /// Nothing more is there to be taken now: batches that were handed over go on their way.
    /// Returns whether there were any.
    pub(super) fn flush(&mut self) -> bool {
        let unflushed = std::mem::take(&mut self.unflushed);
        if unflushed {
            self.link.broker().flush();
        }
        unflushed
    }

    /// Tells the client that the server shuts down; what is under way is still answered.
    pub(super) fn drain(&mut self) {
        if !self.draining {
            self.draining = true;
            self.stop_pushing();
            self.link.notice(0, &drain_notice(self.link.shared.options.drain_ms));
        }
    }

    /// Ends all subscriptions.
    pub(super) fn stop_pushing(&mut self) {
        self.subscriptions.end_all();
    }

    fn greet(&mut self, frame: &Frame) -> bool {
        let answer = match frame.frame_type {
            FrameType::Hello if !frame.flags.is_answer() => {
                frame.decode().map_err(ErrorAnswer::from).and_then(|hello| self.hello(&hello))
            }
            _ => Err(ErrorAnswer::new(ErrorCode::HelloRequired, "the first frame must be HELLO")),
        };
        match answer {
            Ok(answer) => {
                self.link.answer::<hello::Request>(frame.correlation, Ok(answer));
                true
            }
            Err(error) => {
                self.link.refuse(frame.frame_type, frame.correlation, &error);
                false
            }
        }
    }

    fn hello(&mut self, hello: &hello::Request) -> Result<hello::Response, ErrorAnswer> {
        if hello.version_min > VERSION_MAX || hello.version_max < VERSION_MIN {
            let (min, max) = (VERSION_MIN, VERSION_MAX);
            let message = format!(
                "the broker speaks versions {min} to {max}, the client {} to {}",
                hello.version_min, hello.version_max
            );
            return Err(ErrorAnswer::new(ErrorCode::UnsupportedVersion, message)
                .with_detail(ErrorDetail::Versions { min, max }));
        }
        if hello.client_id.len() > CLIENT_ID_BYTES_MAX {
            return Err(invalid(format!("client_id has more than {CLIENT_ID_BYTES_MAX} bytes")));
        }
        if hello.frame_bytes_max < FrameLimits::BEFORE_HELLO.frame_bytes_max {
            return Err(invalid("frame_bytes_max must be at least 64 KiB"));
        }
        self.link.greet(&hello.client_id, hello.frame_bytes_max)?;
        let cluster = self.link.broker().cluster_info();
        let options = &self.link.shared.options;
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(hello::Response {
            version: VERSION_MAX.min(hello.version_max),
            features: 0,
            cluster_id: cluster.cluster_id,
            node_id: cluster.node_id,
            writer_id: cluster.writer_id,
            software: SOFTWARE.to_owned(),
            frame_bytes_max: options.frame_bytes_max,
            requests_max: number(options.requests_max),
            publishers_max: number(options.publishers_max),
            subscriptions_max: number(options.subscriptions_max),
            idle_timeout_ms: u32::try_from(options.idle_timeout_ms).unwrap_or(u32::MAX),
        })
    }

    fn dispatch(&mut self, frame: Frame, header: Option<HeaderTicket>) {
        use FrameType as T;
        match frame.frame_type {
            T::Produce => {
                self.unflushed = true;
                let batch = match self.draining {
                    true => publish::Batch::refused(&frame, Pushback::draining()),
                    false => publish::Batch::Whole { header },
                };
                publish::produce(&self.link, &mut self.publishers, frame, batch);
            }
            T::Hello => self.now(&frame, |_, _: hello::Request| Err(invalid("HELLO came before"))),
            T::Ping => self.now(&frame, |_, _: ping::Request| Ok(ping::Response {})),
            T::PublisherOpen => self.now(&frame, |s, r| s.publishers.open(&s.link, &r)),
            T::PublisherClose => self.now(&frame, |s, r| s.publishers.close(&r)),
            T::Want => self.publishers.want(&self.link, &frame),
            T::Subscribe => self.now(&frame, |s, r| s.subscriptions.subscribe(&s.link, &r)),
            T::Unsubscribe => self.now(&frame, |s, r| s.subscriptions.unsubscribe(&r)),
            T::Credit => self.subscriptions.credit(&self.link, &frame),
            T::Seek => self.now(&frame, |s, r| s.subscriptions.seek(&r)),
            T::Pause => self.now(&frame, |s, r| s.subscriptions.pause(&r)),
            T::Resume => self.now(&frame, |s, r| s.subscriptions.resume(&r)),
            T::Fetch => self.fetch(&frame),
            T::Metadata => self.later(&frame, topics::metadata),
            T::TopicCreate => self.later(&frame, topics::create),
            T::TopicDelete => self.later(&frame, topics::delete),
            T::TopicAlter => self.later(&frame, topics::alter),
            T::PartitionsAdd => self.later(&frame, topics::add_partitions),
            T::TopicDescribe => self.later(&frame, topics::describe),
            T::TopicList => self.later(&frame, topics::list),
            T::ListOffsets => self.later(&frame, topics::list_offsets),
            T::Trim => self.later(&frame, topics::trim),
            T::ProducerInit => self.later(&frame, info::init_producer),
            T::Pressure => self.later(&frame, info::pressure),
            T::Why => self.later(&frame, info::why),
            T::ClusterInfo => self.later(&frame, info::cluster_info),
            T::QuotaSet => self.later(&frame, quotas::set),
            T::QuotaDelete => self.later(&frame, quotas::delete),
            T::QuotaList => self.later(&frame, quotas::list),
            T::GroupHeartbeat => self.later(&frame, groups::heartbeat),
            T::GroupCommit => self.later(&frame, groups::commit),
            T::GroupCommitted => self.later(&frame, groups::committed),
            T::GroupDescribe => self.later(&frame, groups::describe),
            T::GroupList => self.later(&frame, groups::list),
            T::GroupDelete => self.later(&frame, groups::delete),
            T::GroupReset => self.later(&frame, groups::reset),
            T::Goodbye => {} // the client closes next
            T::Grant | T::Pushback | T::Batches | T::SubscriptionEnd => {
                let error = ErrorAnswer::new(
                    ErrorCode::UnknownRequest,
                    format!("{} is sent by brokers only", frame.frame_type.name()),
                );
                self.link.refuse(frame.frame_type, frame.correlation, &error);
            }
        }
    }

    /// Answers at once.
    fn now<C: Call>(
        &mut self,
        frame: &Frame,
        work: impl FnOnce(&mut Session, C) -> Result<C::Answer, ErrorAnswer>,
    ) {
        let result = self.counted(frame).and_then(|request| work(self, request));
        self.link.answer::<C>(frame.correlation, result);
    }

    /// A request, once its quotas have counted it.
    fn counted<C: Call>(&self, frame: &Frame) -> Result<C, ErrorAnswer> {
        let request = frame.decode::<C>()?;
        if !is_free(frame.frame_type) {
            self.link.charge(&Cost { requests: 1, ..Cost::default() })?;
        }
        Ok(request)
    }

    /// Answers from a task of its own.
    fn later<C, F>(&mut self, frame: &Frame, work: impl FnOnce(Arc<Link>, C) -> F)
    where
        C: Call,
        F: Future<Output = Result<C::Answer, ErrorAnswer>> + Send + 'static,
    {
        let Some((request, job)) = self.begin::<C>(frame) else { return };
        let work = work(Arc::clone(&self.link), request);
        self.jobs.spawn(async move {
            let result = work.await;
            job.answer(|link, correlation| link.answer::<C>(correlation, result));
        });
    }

    fn fetch(&mut self, frame: &Frame) {
        let Some((request, job)) = self.begin(frame) else { return };
        let link = Arc::clone(&self.link);
        self.jobs.spawn(async move {
            let read = fetch::read(&link, request).await;
            job.answer(|link, correlation| fetch::answer(link, correlation, read));
        });
    }

    fn begin<C: Call>(&mut self, frame: &Frame) -> Option<(C, Job)> {
        let refuse = |error: ErrorAnswer| {
            self.link.refuse(frame.frame_type, frame.correlation, &error);
            None
        };
        let request = match self.counted(frame) {
            Ok(request) => request,
            Err(error) => return refuse(error),
        };
        let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() else {
            return refuse(too_many(self.link.shared.options.requests_max));
        };
        let job = Job {
            link: Arc::clone(&self.link),
            kind: C::TYPE,
            correlation: frame.correlation,
            answered: false,
            _underway: self.link.in_flight.begin(),
            _permit: permit,
        };
        Some((request, job))
    }

    fn reap(&mut self) {
        while let Some(ended) = self.jobs.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a request ended by a defect");
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A request that runs beside the others. Answered exactly once, even by a defect.
struct Job {
    link: Arc<Link>,
    kind: FrameType,
    correlation: u64,
    answered: bool,
    _underway: Underway,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Job {
    fn answer(mut self, answer: impl FnOnce(&Link, u64)) {
        answer(&self.link, self.correlation);
        self.answered = true;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.answered {
            let error = ErrorAnswer::new(ErrorCode::Internal, "the request ended by a defect");
            self.link.refuse(self.kind, self.correlation, &error);
        }
    }
}

fn meaningless_data(header: &FrameHeader) -> Pushback {
    Pushback::reject(PushbackCode::ServerBusy, PushbackScope::Connection, "frame").met(
        u64::from(header.data_bytes),
        0,
        "bytes",
    )
}

fn too_many(limit: usize) -> ErrorAnswer {
    let pushback = Pushback::hold(PushbackCode::ConnLimit, PushbackScope::Connection, "requests")
        .met(limit as u64 + 1, limit as u64, "requests")
        .after_ms(TOO_MANY_RETRY_MS);
    ErrorAnswer { code: ErrorCode::TooManyRequests, ..pushback.into() }
}
