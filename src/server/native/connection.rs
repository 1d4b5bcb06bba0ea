//! One connection from its first byte to its last: reads frames, hands them to the session, and
//! ends in good order.
//!
//! # Invariants
//! Nothing is read while more than `outbox_bytes_max` of answers are queued. Every wait has a
//! deadline: HELLO, a started frame, or the idle time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::debug;

use super::Shared;
use super::link::Link;
use super::session::Session;
use crate::broker::flow::{Cause, ConnectionFlow, HeaderTicket};
use crate::protocol::native::{
    Deframer, ErrorAnswer, FrameError, FrameHeader, FrameLimits, FrameType, Received, encode_error,
    encode_notice, goodbye,
};
use crate::server::admission::Seat;
use crate::server::outbox::Outbox;
use crate::server::phase::{Phase, PhaseWatch};
use crate::server::writer::write_all;
use crate::types::{ErrorCode, Pushback};

/// Why reading ended.
enum End {
    /// The client sends nothing more; what is under way is still answered.
    ClientDone,
    /// Nothing is under way and the server drains.
    Drained,
    /// The connection cannot go on; the client was told why.
    Refused,
    /// The socket is gone, or nothing came for too long.
    Gone,
}

/// Reads and frames without waiting before other tasks get their turn.
const STEPS_PER_TURN: usize = 64;
/// Bytes of them: no batch waits for long to be handed over, and no answer to be sent, because more
/// comes without a pause.
const BYTES_PER_TURN: usize = 512 << 10;
/// Control bytes that are kept of a frame whose data part is dropped; that of PRODUCE has 29.
const SKIPPED_CONTROL_BYTES_MAX: u32 = 4 << 10;
/// How long a closed connection is read on, so that the last answers are not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read and dropped meanwhile.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// Serves one connection to its end.
pub(in crate::server) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    seat: Seat,
    shared: Arc<Shared>,
    phase: PhaseWatch,
) {
    let _ = socket.set_nodelay(true); // an optimisation; the connection works without
    let socket = Arc::new(socket);
    let outbox = Outbox::new(Arc::downgrade(&socket));
    let link = Arc::new(Link::new(shared, peer, seat, phase.clone(), outbox));
    let stall = Duration::from_millis(link.shared.options.write_stall_ms);
    let writer = tokio::spawn({
        let (link, socket) = (Arc::clone(&link), Arc::clone(&socket));
        async move {
            let written = write_all(&link.outbox, &socket, stall).await;
            if let Err(error) = written {
                debug!(%peer, %error, "writing ended");
                link.outbox.close();
            }
        }
    });
    let mut ending = Ending { link: Arc::clone(&link), writer };
    let mut connection = Connection::new(socket, Arc::clone(&link), phase);
    let end = connection.run().await;
    connection.finish(end, &mut ending.writer).await;
}

/// Tells a client that there is no room for it.
pub(in crate::server) async fn refuse(mut socket: TcpStream, pushback: Pushback) {
    let goodbye = goodbye::Request { error: Some(pushback.into()), close_ms: 0 };
    let mut frame = Vec::new();
    encode_notice(&mut frame, 0, &goodbye);
    let told = async {
        socket.write_all(&frame).await?;
        socket.shutdown().await?;
        drain(&socket).await
    };
    let _ = timeout(LINGER, told).await; // whoever does not listen is not waited for
}

/// Ends the other tasks of a connection whatever way its own ends, a panic included.
struct Ending {
    link: Arc<Link>,
    writer: JoinHandle<()>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.link.outbox.close();
        self.writer.abort();
    }
}

/// A large frame that is being received.
struct Ahead {
    header: FrameHeader,
    /// What it takes meanwhile, or why its data part is dropped.
    decided: Result<HeaderTicket, Pushback>,
}

struct Connection {
    socket: Arc<TcpStream>,
    deframer: Deframer,
    session: Session,
    link: Arc<Link>,
    phase: PhaseWatch,
    accepted: Instant,
    last_frame: Instant,
    /// When the frame that is being received was first seen waiting.
    started: Option<Instant>,
    steps: usize,
    /// Bytes read in this turn.
    bytes: usize,
    /// What was decided about a large frame that is being received.
    ahead: Option<Ahead>,
    /// When the turn began, while deliveries may have to wait for it.
    turn_began: Option<Duration>,
}

impl Connection {
    fn new(socket: Arc<TcpStream>, link: Arc<Link>, phase: PhaseWatch) -> Connection {
        let now = Instant::now();
        Connection {
            socket,
            deframer: Deframer::new(FrameLimits::BEFORE_HELLO, Arc::clone(&link.shared.pool)),
            session: Session::new(Arc::clone(&link)),
            link,
            phase,
            accepted: now,
            last_frame: now,
            started: None,
            steps: 0,
            bytes: 0,
            ahead: None,
            turn_began: None,
        }
    }

    /// Reads until the connection is to end.
    async fn run(&mut self) -> End {
        let mut alarm = Box::pin(sleep_until(self.deadline()));
        loop {
            let taken = self.take_frames().await.and_then(|()| self.look_ahead());
            if let Err(end) = taken {
                return end;
            }
            match self.socket.try_read_buf(&mut self.deframer.spare()) {
                Ok(0) => return End::ClientDone,
                Ok(read) => self.step(read).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.deframer.park();
                    if let Err(end) = self.hold_memory() {
                        return end;
                    }
                    self.end_turn().await;
                    if let Some(end) = self.wait(alarm.as_mut()).await {
                        return end;
                    }
                    self.begin_turn();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return End::Gone,
            }
        }
    }

    /// Hands every whole frame to the session.
    async fn take_frames(&mut self) -> Result<(), End> {
        loop {
            let received = match self.deframer.next_frame() {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.refuse_bytes(&error)),
            };
            self.started = None;
            self.last_frame = Instant::now();
            if !self.take(received) {
                return Err(End::Refused);
            }
            let queued_max = self.link.shared.options.outbox_bytes_max;
            if !self.link.outbox.is_below(queued_max) {
                self.end_turn().await;
                self.link.outbox.below(queued_max).await;
                self.begin_turn();
            }
            if self.link.outbox.is_closed() {
                return Err(End::Gone);
            }
            self.step(0).await;
        }
    }

    /// Decides about a large frame as soon as its header came.
    fn look_ahead(&mut self) -> Result<(), End> {
        if let Some(header) = self.deframer.announced() {
            let decided = self.session.announced(&header);
            self.ahead = decided.map(|decided| Ahead { header, decided });
        }
        self.hold_memory()
    }

    /// Counts the memory of a large frame that is being received. When there is none left, nothing
    /// is kept of it but its control part; one that is large itself ends the connection.
    fn hold_memory(&mut self) -> Result<(), End> {
        let held = self.deframer.held_bytes() as u64;
        let Some(Ahead { header, decided }) = &mut self.ahead else { return Ok(()) };
        let refused = match decided {
            Ok(ticket) => ticket.hold(held, self.link.broker().monotonic()).err(),
            Err(_) => None,
        };
        if let Some(pushback) = refused {
            *decided = Err(pushback);
        }
        let Err(pushback) = decided else { return Ok(()) };
        if header.control_bytes > SKIPPED_CONTROL_BYTES_MAX {
            let kind = FrameType::from_u16(header.frame_type).unwrap_or(FrameType::Goodbye);
            self.link.refuse(kind, header.correlation, &pushback.clone().into());
            return Err(End::Refused);
        }
        self.deframer.skip_data();
        Ok(())
    }

    /// Takes one frame; `false` = the connection ends.
    fn take(&mut self, received: Received) -> bool {
        let greeted = self.link.is_greeted();
        let ahead = self.ahead.take();
        match received {
            Received::Frame(frame) => {
                let goes_on = self.session.take(frame, ahead.and_then(|ahead| ahead.decided.ok()));
                if !greeted && self.link.is_greeted() {
                    self.deframer.set_limits(self.link.shared.frame_limits());
                }
                goes_on
            }
            Received::Skipped(skipped) => {
                // Nothing else is skipped.
                let Some(Ahead { decided: Err(pushback), .. }) = ahead else { return false };
                self.session.take_skipped(skipped, pushback)
            }
            Received::Refused(refused) => {
                if !refused.is_answer {
                    let kind = FrameType::from_u16(refused.frame_type);
                    let kind = kind.unwrap_or(FrameType::Goodbye);
                    self.link.refuse(kind, refused.correlation, &refused.error);
                }
                greeted
            }
        }
    }

    /// Tells why the bytes cannot be read on.
    fn refuse_bytes(&self, error: &FrameError) -> End {
        debug!(peer = %self.link.peer, %error, "bytes refused");
        let (kind, correlation) = match error {
            FrameError::TooLarge { correlation, frame_type, .. } => {
                (FrameType::from_u16(*frame_type).unwrap_or(FrameType::Goodbye), *correlation)
            }
            FrameError::NotAFrame { .. } | FrameError::HeaderChecksum { .. } => {
                (FrameType::Goodbye, 0)
            }
        };
        let answer = error.to_answer();
        self.link.outbox.reply(|out| encode_error(out, kind, correlation, &answer));
        End::Refused
    }

    /// Waits for bytes; an end when there is a reason not to.
    async fn wait(&mut self, mut alarm: std::pin::Pin<&mut Sleep>) -> Option<End> {
        if self.started.is_none() && self.deframer.started_bytes() > 0 {
            self.started = Some(Instant::now());
        }
        let draining = self.phase.now() == Phase::Draining;
        if draining {
            self.session.drain();
        }
        let link = Arc::clone(&self.link);
        loop {
            let deadline = self.deadline();
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            let next = if draining { Phase::Ending } else { Phase::Draining };
            tokio::select! {
                biased;
                ready = self.socket.readable() => return ready.is_err().then_some(End::Gone),
                () = link.outbox.closed() => return Some(End::Gone),
                () = self.phase.reached(next) => {
                    let ending = self.phase.now() == Phase::Ending;
                    return ending.then_some(End::Gone);
                }
                () = link.in_flight.idle(), if draining => return Some(End::Drained),
                () = alarm.as_mut() => {
                    // The alarm is moved only when it rings: frames move the deadline all the time.
                    if deadline <= Instant::now() {
                        return Some(self.too_slow());
                    }
                    alarm.as_mut().reset(deadline);
                }
            }
        }
    }

    /// When the client has waited too long with what it has to send.
    fn deadline(&self) -> Instant {
        let options = &self.link.shared.options;
        if !self.link.is_greeted() {
            return self.accepted + Duration::from_millis(options.handshake_timeout_ms);
        }
        if let Some(started) = self.started {
            let rate = options.frame_bytes_per_s_min.max(1);
            let earned_ms = self.deframer.started_bytes() * 1_000 / rate;
            return started + Duration::from_millis(options.frame_grace_ms + earned_ms);
        }
        let beyond_limits = self.link.refusal().is_some();
        let idle_ms =
            if beyond_limits { options.handshake_timeout_ms } else { options.idle_timeout_ms };
        self.last_frame + Duration::from_millis(idle_ms)
    }

    fn too_slow(&self) -> End {
        debug!(peer = %self.link.peer, "closed: nothing came in time");
        let error = ErrorAnswer::new(ErrorCode::TimedOut, "nothing came in time");
        self.link.notice(0, &goodbye::Request { error: Some(error), close_ms: 0 });
        End::Refused
    }

    /// Ends in good order: answers what is under way, writes what is queued, closes.
    async fn finish(mut self, end: End, writer: &mut JoinHandle<()>) {
        if matches!(end, End::Gone) {
            return;
        }
        self.session.flush();
        let options = &self.link.shared.options;
        let patience = Duration::from_millis(options.drain_ms);
        let mut phase = self.phase.clone();
        let last_words = async {
            if matches!(end, End::ClientDone) {
                self.session.stop_pushing();
                self.link.in_flight.idle().await;
            }
            self.link.outbox.finish();
            let _ = writer.await; // it closes the outbox when it fails
        };
        tokio::select! {
            _ = timeout(patience, last_words) => {}
            () = phase.reached(Phase::Ending) => return,
        }
        if !matches!(end, End::ClientDone) {
            let _ = timeout(LINGER, drain(&self.socket)).await;
        }
    }

    /// One step, which read so many bytes.
    async fn step(&mut self, read: usize) {
        self.steps += 1;
        self.bytes += read;
        if self.steps >= STEPS_PER_TURN || self.bytes >= BYTES_PER_TURN {
            (self.steps, self.bytes) = (0, 0);
            self.end_turn().await;
            tokio::task::yield_now().await;
            self.begin_turn();
        }
    }

    fn begin_turn(&mut self) {
        let watched = self.link.shared.serving.has_waited();
        self.turn_began = watched.then(|| self.link.broker().monotonic());
    }

    /// Hands batches over. While deliveries wait, produce pauses for what it took beyond its part
    /// of the time.
    async fn end_turn(&mut self) {
        let produced = self.session.flush();
        let Some(began) = self.turn_began.take().filter(|_| produced) else { return };
        let now = self.link.broker().monotonic();
        let took = now.saturating_sub(began);
        if let Some(pause) = self.link.shared.serving.produce_turn(took, now) {
            let wait = |flow: &ConnectionFlow| {
                let clock = self.link.broker().clock();
                flow.parties().publishers_wait(Cause::Serving, now + pause, clock)
            };
            let _waits = self.link.flow().map(wait);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Reads and drops what still comes until the other side closes too.
async fn drain(socket: &TcpStream) -> io::Result<()> {
    let mut dropped = 0;
    let mut scrap = [0; 4096];
    while dropped < LINGER_BYTES_MAX {
        socket.readable().await?;
        match socket.try_read(&mut scrap) {
            Ok(0) => return Ok(()),
            Ok(len) => dropped += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The drain notice.
pub(super) fn drain_notice(close_ms: u64) -> goodbye::Request {
    let close_ms = u32::try_from(close_ms).unwrap_or(u32::MAX);
    goodbye::Request { error: Some(Pushback::draining().into()), close_ms }
}
