//! Making a connection: TCP, Hello, then the tasks that serve it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Buf as _;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::reader::read_loop;
use super::{Connection, State};
use crate::client::{ClientError, ClientOptions};
use crate::protocol::native::{
    BufferPool, Deframer, FrameLimits, Received, VERSION_MAX, VERSION_MIN, encode_call, hello, ping,
};

impl Connection {
    /// Connects and says Hello.
    pub(in crate::client) async fn open(
        address: &str,
        options: &ClientOptions,
        pool: Arc<BufferPool>,
    ) -> Result<Arc<Connection>, ClientError> {
        let unreachable =
            |cause: String| ClientError::Unreachable { address: address.to_owned(), cause };
        let opening = async {
            let stream =
                TcpStream::connect(address).await.map_err(|e| unreachable(e.to_string()))?;
            stream.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
            let mut deframer = Deframer::new(FrameLimits::BEFORE_HELLO, pool);
            let (stream, hello) = say_hello(stream, &mut deframer, options, &unreachable).await?;
            Ok::<_, ClientError>((stream, deframer, hello))
        };
        let opened = tokio::time::timeout(options.connect_timeout, opening).await;
        let (stream, deframer, hello) =
            opened.map_err(|_| unreachable("no answer in time".to_owned()))??;
        Ok(Connection::serve(address, stream, deframer, hello))
    }

    fn serve(
        address: &str,
        stream: TcpStream,
        deframer: Deframer,
        hello: hello::Response,
    ) -> Arc<Connection> {
        let requests = usize::try_from(hello.requests_max.max(1)).unwrap_or(1);
        let idle = Duration::from_millis(u64::from(hello.idle_timeout_ms));
        let connection = Arc::new(Connection {
            address: address.to_owned(),
            writer_id: hello.writer_id.into(),
            outbox: super::Outbox::default(),
            state: Mutex::new(State::default()),
            requests: Arc::new(Semaphore::new(requests.min(Semaphore::MAX_PERMITS))),
            correlations: AtomicU64::new(2),
            subscription_numbers: AtomicU32::new(1),
            subscriptions: AtomicU64::new(0),
            closed: watch::Sender::new(false),
            draining: AtomicBool::new(false),
            received: AtomicU64::new(0),
            traffic_bytes: AtomicU64::new(0),
        });
        let (read_half, write_half) = stream.into_split();
        tokio::spawn(read_loop(Arc::clone(&connection), read_half, deframer));
        tokio::spawn(write_loop(Arc::clone(&connection), write_half));
        if !idle.is_zero() {
            tokio::spawn(keep_alive(Arc::clone(&connection), idle));
        }
        connection
    }
}

async fn say_hello(
    mut stream: TcpStream,
    deframer: &mut Deframer,
    options: &ClientOptions,
    unreachable: &impl Fn(String) -> ClientError,
) -> Result<(TcpStream, hello::Response), ClientError> {
    let request = hello::Request {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        features: 0,
        client_id: options.client_id.clone(),
        software: concat!("stoplog-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
        frame_bytes_max: options.frame_bytes_max,
    };
    let mut frame = Vec::new();
    encode_call(&mut frame, 1, &request);
    stream.write_all(&frame).await.map_err(|e| unreachable(e.to_string()))?;
    loop {
        match deframer.next_frame().map_err(|e| ClientError::Protocol(e.to_string()))? {
            Some(Received::Frame(frame)) => {
                let hello = frame.answer::<hello::Request>().map_err(ClientError::from)?;
                let mut limits = FrameLimits::DEFAULT;
                limits.frame_bytes_max = options.frame_bytes_max;
                limits.control_bytes_max = options.frame_bytes_max;
                deframer.set_limits(limits);
                return Ok((stream, hello));
            }
            Some(Received::Refused(refused)) => return Err(refused.error.into()),
            Some(Received::Skipped(_)) | None => {} // nothing is skipped here
        }
        stream.readable().await.map_err(|e| unreachable(e.to_string()))?;
        match stream.try_read_buf(&mut deframer.spare()) {
            Ok(0) => return Err(unreachable("closed before Hello was answered".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(unreachable(error.to_string())),
        }
    }
}

async fn write_loop(connection: Arc<Connection>, mut half: tokio::net::tcp::OwnedWriteHalf) {
    while let Some(mut outgoing) = connection.outbox.take().await {
        let bytes = outgoing.remaining() as u64;
        let write = half.write_all_buf(&mut outgoing);
        let result = tokio::select! {
            result = write => result,
            () = connection.closed() => return,
        };
        match result {
            Ok(()) => {
                connection.traffic_bytes.fetch_add(bytes, Ordering::Relaxed);
                outgoing.finish();
            }
            Err(error) => return connection.close(connection.lost(error)),
        }
    }
}

/// Asks whether the broker is there when nothing else was heard for a third of the time after
/// which it would take this side for dead.
async fn keep_alive(connection: Arc<Connection>, idle: Duration) {
    let pause = idle / 3;
    let mut heard = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = connection.closed() => return,
        }
        let now = connection.received.load(Ordering::Relaxed);
        if now == heard && connection.call(&ping::Request {}, pause).await.is_err() {
            return connection.close(connection.lost("no sign of life"));
        }
        heard = now;
    }
}
