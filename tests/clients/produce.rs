//! Producing: nothing twice, nothing missing, bounded memory.

use std::time::Duration;

use stoplog::broker::ShutdownMode;
use stoplog::client::{
    Client, ClientError, ClientOptions, ConsumerOptions, Delivered, NewRecord, Producer,
    ProducerOptions, TrySendError, partition_for_key,
};
use stoplog::record::{BatchBuilder, BuilderOptions, Compression, RecordRef};
use stoplog::types::{
    Acks, Class, DurabilityLevel, Effects, ErrorCode, ErrorKind, Offset, PartitionId,
};

use crate::relay::Relay;
use crate::world::{World, check_all, connect, number, send, topic, within};

#[tokio::test(flavor = "multi_thread")]
async fn keyed_records_arrive_once_in_order_and_where_kafka_puts_them() {
    let world = World::start(4).await;
    send(&world.producer().await, 0..2_000).await;
    let all = world.everything().await;
    check_all(&all, 2_000);
    for record in &all {
        let key = record.record.key.as_ref().unwrap();
        assert_eq!(record.partition.0, partition_for_key(key, 4));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_says_where_and_how_safe() {
    let world = World::start(1).await;
    let producer = world.producer().await;
    for offset in 0..3 {
        let delivery = producer.send(NewRecord::value(b"x")).await.unwrap();
        let delivered = within(delivery).await.unwrap();
        assert_eq!(delivered.offset, Some(Offset(offset)));
        assert_eq!(delivered.level, DurabilityLevel::Durable);
        assert!(!delivered.duplicate);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_broken_lines_repeat_nothing() {
    for answer_bytes in [300, 1_000, 2_000] {
        let world = World::start(2).await;
        let relay = Relay::start(&world.address, answer_bytes, 6).await;
        let options = ProducerOptions { batch_bytes: 512, ..ProducerOptions::default() };
        let client = connect(&relay.address).await;
        let producer = client.producer(&topic(), options).await.unwrap();
        let delivered = send(&producer, 0..3_000).await;
        assert!(relay.cuts_left() < 6, "the line was never cut");
        let all = world.everything().await;
        check_all(&all, 3_000);
        let repeated = delivered.iter().filter(|delivered| delivered.duplicate).count();
        assert!(repeated > 0, "no answer to a written batch was lost");
        for (number, delivered) in (0..).zip(&delivered) {
            let found = all.iter().find(|record| self::number(record) == number).unwrap();
            assert_eq!(delivered.partition, found.partition);
            assert_eq!(delivered.offset, Some(found.record.offset), "record {number}");
        }
    }
}

/// A producer that gives up soon.
async fn impatient(address: &str) -> Producer {
    impatient_of(&connect(address).await).await
}

async fn impatient_of(client: &Client) -> Producer {
    let options = ProducerOptions {
        // Long enough for a busy machine, with nothing to wait for at the disk.
        delivery_timeout: Duration::from_millis(1_500),
        acks: Acks::Os,
        ..ProducerOptions::default()
    };
    client.producer(&topic(), options).await.unwrap()
}

async fn try_to_send(producer: &Producer, number: u32) -> Result<Delivered, ClientError> {
    let value = number.to_string();
    within(producer.send(NewRecord::value(value.as_bytes()))).await.unwrap().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_times_out_under_way_and_says_that_it_may_have_happened() {
    let world = World::start(1).await;
    let relay = Relay::whole(&world.address).await;
    let producer = impatient(&relay.address).await;
    try_to_send(&producer, 0).await.unwrap();
    relay.hold_answers(true);
    for number in [1, 2] {
        let error = within(try_to_send(&producer, number)).await.unwrap_err();
        assert_eq!((error.code(), error.effects()), (ErrorCode::TimedOut, Effects::Unknown));
    }
    within(producer.flush()).await.unwrap();
    relay.hold_answers(false);
    for number in 3..10 {
        let delivered = within(try_to_send(&producer, number)).await.unwrap();
        assert_eq!(delivered.offset, Some(Offset(i64::from(number))));
    }
    world.shows(10).await;
    let all: Vec<u32> = world.everything().await.iter().map(number).collect();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
    within(producer.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_under_way_is_not_taken_for_what_comes_after_it() {
    let world = World::start(1).await;
    let relay = Relay::whole(&world.address).await;
    let producer = impatient(&relay.address).await;
    try_to_send(&producer, 0).await.unwrap();
    relay.hold_requests(true);
    let error = within(try_to_send(&producer, 1)).await.unwrap_err();
    assert_eq!(error.effects(), Effects::Unknown);
    // A new line is open; in the old one the batch that was given up is still on its way.
    relay.sever();
    // So may this one be, when its first copy was sent before the break was seen.
    let second = within(try_to_send(&producer, 2)).await;
    assert!(second.as_ref().err().is_none_or(|error| error.effects() == Effects::Unknown));
    relay.hold_requests(false);
    let mut last = None;
    for number in 3..20 {
        last = within(try_to_send(&producer, number)).await.unwrap().offset;
    }
    world.shows(last.unwrap().0 + 1).await;
    let all: Vec<u32> = world.everything().await.iter().map(number).collect();
    let delivered = |number: &u32| *number == 0 || *number > 2 || (*number == 2 && second.is_ok());
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    assert!((0..20).filter(delivered).all(|number| all.contains(&number)), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_was_never_tried_had_no_effect() {
    let world = World::start(1).await;
    let relay = Relay::whole(&world.address).await;
    let options =
        ClientOptions { retry_timeout: Duration::from_millis(200), ..ClientOptions::default() };
    let client = Client::connect(&relay.address, options).await.unwrap();
    let producer = impatient_of(&client).await;
    try_to_send(&producer, 0).await.unwrap();
    let World { dir, broker, server, address } = world;
    server.shutdown(ShutdownMode::AtOnce).await;
    broker.shutdown(ShutdownMode::AtOnce).await;
    drop((dir, address));
    // What is sent over a line that is not yet seen to be closed is tried.
    assert!(within(client.admin().list_topics()).await.is_err());
    let error = within(try_to_send(&producer, 1)).await.unwrap_err();
    assert_eq!(error.effects(), Effects::None, "{error}");
    assert!(error.is_passing());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_broker_is_found_again_and_nothing_is_repeated() {
    for mode in [ShutdownMode::Graceful, ShutdownMode::AtOnce] {
        let world = World::start(2).await;
        let producer = world.producer().await;
        send(&producer, 0..200).await;
        let sending = {
            let producer = producer.clone();
            tokio::spawn(async move { send(&producer, 200..600).await })
        };
        let world = world.restart(mode).await;
        within(sending).await.unwrap();
        check_all(&world.everything().await, 600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_send_and_a_dropped_delivery_harm_nobody() {
    let world = World::start(1).await;
    let client = world.client().await;
    let options = ProducerOptions { buffer_bytes: 200, ..ProducerOptions::default() };
    let producer = client.producer(&topic(), options).await.unwrap();
    for number in 0..50_u32 {
        let value = number.to_string();
        // Only the first poll: taken when there is room, else given up.
        let poll =
            tokio::time::timeout(Duration::ZERO, producer.send(NewRecord::value(value.as_bytes())));
        drop(poll.await);
    }
    producer.flush().await.unwrap();
    let all = world.everything().await;
    assert!(all.iter().map(number).is_sorted());
    assert!(!all.is_empty());
    drop(client.admin().list_topics());
    assert_eq!(client.admin().list_topics().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_is_a_pushback_for_one_and_a_wait_for_the_other() {
    let world = World::start(1).await;
    let options = ProducerOptions {
        buffer_bytes: 100,
        linger: Duration::from_secs(3_600),
        ..ProducerOptions::default()
    };
    let producer = world.client().await.producer(&topic(), options).await.unwrap();
    let first = producer.try_send(NewRecord::value(&[7; 60])).unwrap();
    match producer.try_send(NewRecord::value(&[7; 60])) {
        Err(TrySendError::Pushback(pushback)) => {
            assert_eq!((pushback.limit, pushback.unit.as_str()), (100, "bytes"));
        }
        other => panic!("{other:?}"),
    }
    let waiting = {
        let producer = producer.clone();
        tokio::spawn(async move { producer.send(NewRecord::value(&[8; 60])).await })
    };
    within(producer.flush()).await.unwrap();
    assert!(first.wait().await.is_ok());
    let second = within(waiting).await.unwrap().unwrap();
    within(producer.close()).await.unwrap();
    assert_eq!(second.wait().await.unwrap().offset, Some(Offset(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_limits_a_producer_is_told_as_it_comes_and_goes() {
    let world = World::start(4).await;
    let relay = Relay::whole(&world.address).await;
    let client = connect(&relay.address).await;
    let producer = client.producer(&topic(), ProducerOptions::default()).await.unwrap();
    let mut pressure = producer.on_pressure();
    within(producer.send(NewRecord::value(b"first")).await.unwrap()).await.unwrap();
    assert_eq!(*pressure.borrow_and_update(), None);
    // Grants are answers: what may be sent is sent, the rest waits for more.
    relay.hold_answers(true);
    let large = vec![7; 60_000];
    for number in 0..40 {
        let record =
            NewRecord { partition: Some(PartitionId(number % 4)), ..NewRecord::value(&large) };
        drop(producer.send(record).await.unwrap());
    }
    let limit = within(pressure.wait_for(Option::is_some)).await.unwrap().clone().unwrap();
    assert_eq!((limit.limit_id.as_str(), limit.effects), ("grant", Effects::None));
    relay.hold_answers(false);
    within(producer.flush()).await.unwrap();
    within(pressure.wait_for(Option::is_none)).await.unwrap();
    assert_eq!(producer.limited_by(), None);
    within(producer.close()).await.unwrap();
    while within(pressure.changed()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linger_that_began_under_an_unanswered_batch_ends_by_itself() {
    let world = World::start(1).await;
    let relay = Relay::whole(&world.address).await;
    let linger = Duration::from_millis(300);
    let options = ProducerOptions { linger, ..ProducerOptions::default() };
    let producer = connect(&relay.address).await.producer(&topic(), options).await.unwrap();
    let first = producer.send(NewRecord::value(b"0")).await.unwrap();
    within(first.wait()).await.unwrap();
    relay.hold_answers(true);
    let second = producer.send(NewRecord::value(b"1")).await.unwrap();
    world.shows(2).await;
    let third = producer.send(NewRecord::value(b"2")).await.unwrap();
    relay.hold_answers(false);
    within(second.wait()).await.unwrap();
    assert_eq!(within(third.wait()).await.unwrap().offset, Some(Offset(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_linger_a_batch_fills_while_another_is_under_way() {
    let world = World::start(1).await;
    let relay = Relay::whole(&world.address).await;
    let client = connect(&relay.address).await;
    let producer = client.producer(&topic(), ProducerOptions::default()).await.unwrap();
    let first = producer.send(NewRecord::value(b"0")).await.unwrap();
    within(first.wait()).await.unwrap();
    relay.hold_answers(true);
    let mut batches = Vec::new();
    for number in 0..10 {
        let delivery = producer.send(NewRecord::value(b"x")).await.unwrap();
        batches.extend(delivery.opened_batch().map(|batch| (number, batch)));
    }
    relay.hold_answers(false);
    let opened: Vec<u32> = batches.iter().map(|(number, _)| *number).collect();
    assert_eq!(opened, [0, 1], "the first goes at once, the others share a batch");
    let (_, last) = batches.pop().unwrap();
    assert_eq!(within(last.wait()).await.unwrap().records, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_arrives_and_large_records_pass_the_batch_size() {
    let world = World::start(1).await;
    let client = world.client().await;
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for codec in codecs {
        let options = ProducerOptions {
            compression: Some(codec),
            batch_bytes: 1_000,
            ..ProducerOptions::default()
        };
        let producer = client.producer(&topic(), options).await.unwrap();
        let large = vec![b'a'; 300_000];
        let delivery = producer.send(NewRecord::value(&large)).await.unwrap();
        within(delivery).await.unwrap();
        let refused = producer.send(NewRecord::value(&vec![0; 2 << 20])).await;
        assert!(matches!(refused, Err(ClientError::RecordTooLarge { .. })));
        producer.close().await.unwrap();
    }
    let all = world.everything().await;
    assert_eq!(all.len(), codecs.len());
    assert!(all.iter().all(|r| r.record.value.as_ref().unwrap().len() == 300_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_built_before_are_sent_as_they_are() {
    let world = World::start(1).await;
    let sender = world.client().await.batch_sender(&topic(), Class::Bulk).await.unwrap();
    let mut builder = BatchBuilder::new(BuilderOptions::default());
    for value in ["0", "1", "2"] {
        let record = RecordRef { value: Some(value.as_bytes()), ..RecordRef::default() };
        builder.push(&record).unwrap();
    }
    let batch = builder.build();
    let answers: Vec<_> = (0..10)
        .map(|_| sender.produce_batch(PartitionId(0), batch.clone(), Acks::Durable))
        .collect();
    for (index, answer) in (0..).zip(answers) {
        assert_eq!(within(answer).await.unwrap().offset, Some(Offset(index * 3)));
    }
    let unanswered = sender.produce_batch(PartitionId(0), batch, Acks::None);
    assert_eq!(within(unanswered).await.unwrap().level, DurabilityLevel::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_to_do() {
    let world = World::start(1).await;
    let client = world.client().await;
    let missing = client.producer(&"nowhere".parse().unwrap(), ProducerOptions::default()).await;
    let error = missing.err().unwrap();
    assert_eq!((error.code(), error.kind()), (ErrorCode::TopicNotFound, ErrorKind::NotFound));
    let nobody = Client::connect("127.0.0.1:1", ClientOptions::default()).await.err().unwrap();
    assert_eq!(nobody.code(), ErrorCode::Unreachable);
    let producer = world.producer().await;
    let mut record = NewRecord::value(b"x");
    record.partition = Some(PartitionId(9));
    let refused = producer.send(record).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::PartitionNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_unreachable_in_bounded_time() {
    // It accepts and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let options =
        ClientOptions { connect_timeout: Duration::from_millis(100), ..ClientOptions::default() };
    let error = within(Client::connect(&address, options)).await.err().unwrap();
    assert_eq!((error.code(), error.kind()), (ErrorCode::Unreachable, ErrorKind::Closed));
    assert!(error.is_passing());
    assert_eq!(error.effects(), Effects::None);
    // It speaks something else.
    const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n";
    let other = tokio::spawn(async move {
        let _first = silent.accept().await.unwrap();
        let (mut line, _) = silent.accept().await.unwrap();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut line, &HTTP.repeat(4)).await;
        std::future::pending::<()>().await;
    });
    let options = ClientOptions::default();
    let error = within(Client::connect(&address, options)).await.err().unwrap();
    assert!(matches!(error, ClientError::Unreachable { .. } | ClientError::Protocol(_)), "{error}");
    assert!(!error.to_string().contains("in time"), "{error}");
    other.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_broker_that_is_gone_fail_in_bounded_time() {
    let world = World::start(1).await;
    let options =
        ClientOptions { retry_timeout: Duration::from_millis(200), ..ClientOptions::default() };
    let client = Client::connect(&world.address, options).await.unwrap();
    let World { dir, broker, server, .. } = world;
    server.shutdown(ShutdownMode::AtOnce).await;
    broker.shutdown(ShutdownMode::AtOnce).await;
    let producer = within(client.producer(&topic(), ProducerOptions::default())).await;
    assert!(producer.err().unwrap().is_passing());
    let consumer = within(client.consumer(ConsumerOptions::topic(topic()))).await;
    assert_eq!(consumer.err().unwrap().code(), ErrorCode::Unreachable);
    let listed = within(client.admin().list_topics()).await;
    assert_eq!(listed.err().unwrap().code(), ErrorCode::Unreachable);
    drop(dir);
}
