//! A line between client and broker that can be cut: the client's bytes arrive, the answers do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Relay {
    pub address: String,
    cuts: Arc<AtomicUsize>,
}

impl Relay {
    /// Cuts the line after every `answer_bytes` of answers, until it did so `cuts` times.
    pub async fn start(to: &str, answer_bytes: usize, cuts: usize) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let left = Arc::new(AtomicUsize::new(cuts));
        let (to, counter) = (to.to_owned(), Arc::clone(&left));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let broker = TcpStream::connect(&to).await.unwrap();
                tokio::spawn(relay(client, broker, answer_bytes, Arc::clone(&counter)));
            }
        });
        Relay { address, cuts: left }
    }

    /// Cuts that are still to come.
    pub fn cuts_left(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

async fn relay(client: TcpStream, broker: TcpStream, answer_bytes: usize, cuts: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let forth = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_broker).await;
    });
    let mut buffer = vec![0; 4096];
    let mut relayed = 0;
    while let Ok(count) = from_broker.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        relayed += count;
        let cut = |left: usize| left.checked_sub(1);
        if relayed > answer_bytes
            && cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut).is_ok()
        {
            break;
        }
        if to_client.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    forth.abort();
}
