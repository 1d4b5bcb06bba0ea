//! A line between client and broker that can be cut: the client's bytes arrive, the answers do not.
//! And that can be stopped, in either direction, without anybody noticing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Relay {
    pub address: String,
    line: Line,
}

#[derive(Clone)]
struct Line {
    answer_bytes: usize,
    cuts: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    /// In the first so many lines, what the client sends is held back.
    requests: watch::Sender<usize>,
    /// Whether what the broker sends is held back.
    answers: watch::Sender<bool>,
    /// How often the client's side was cut.
    severed: watch::Sender<u32>,
}

impl Relay {
    /// Cuts the line after every `answer_bytes` of answers, until it did so `cuts` times.
    pub async fn start(to: &str, answer_bytes: usize, cuts: usize) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let line = Line {
            answer_bytes,
            cuts: Arc::new(AtomicUsize::new(cuts)),
            opened: Arc::default(),
            requests: watch::Sender::new(0),
            answers: watch::Sender::new(false),
            severed: watch::Sender::new(0),
        };
        let (to, each) = (to.to_owned(), line.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let broker = TcpStream::connect(&to).await.unwrap();
                tokio::spawn(relay(client, broker, each.clone()));
            }
        });
        Relay { address, line }
    }

    /// A line that is never cut by itself.
    pub async fn whole(to: &str) -> Relay {
        Relay::start(to, usize::MAX, 0).await
    }

    /// Cuts that are still to come.
    pub fn cuts_left(&self) -> usize {
        self.line.cuts.load(Ordering::Relaxed)
    }

    /// Holds back what clients send over the lines that are open now, or lets it through.
    pub fn hold_requests(&self, hold: bool) {
        let lines = if hold { self.line.opened.load(Ordering::Relaxed) } else { 0 };
        self.line.requests.send_replace(lines);
    }

    /// Holds back what the broker sends, or lets it through.
    pub fn hold_answers(&self, hold: bool) {
        self.line.answers.send_replace(hold);
    }

    /// Clients see the line break; what they sent and is held back may still arrive.
    pub fn sever(&self) {
        self.line.severed.send_modify(|count| *count += 1);
    }
}

async fn relay(client: TcpStream, broker: TcpStream, line: Line) {
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let mut severed = line.severed.subscribe();
    severed.mark_unchanged();
    let number = line.opened.fetch_add(1, Ordering::Relaxed);
    let held = line.requests.subscribe();
    let forth = tokio::spawn(forth(from_client, to_broker, held, number));
    tokio::select! {
        () = back(from_broker, to_client, &line) => forth.abort(),
        _ = severed.changed() => {}
    }
}

async fn forth(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut held: watch::Receiver<usize>,
    number: usize,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(count) = from.read(&mut buffer).await {
        let _ = held.wait_for(|held| number >= *held).await;
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: &Line) {
    let mut held = line.answers.subscribe();
    let mut buffer = vec![0; 4096];
    let mut relayed = 0_usize;
    while let Ok(count) = from.read(&mut buffer).await {
        let _ = held.wait_for(|held| !held).await;
        if count == 0 {
            break;
        }
        relayed += count;
        let cut = |left: usize| left.checked_sub(1);
        if relayed > line.answer_bytes
            && line.cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut).is_ok()
        {
            break;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}
