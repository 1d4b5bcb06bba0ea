// kafkajs's batches: sent to the fake broker, which writes them to files.
const fs = require('fs');
const { Kafka, CompressionTypes, logLevel } = require('kafkajs');
const records = JSON.parse(fs.readFileSync('/tmp/golden/records.json'));
(async () => {
  fs.writeFileSync('/tmp/golden/who', 'kafkajs');
  const producer = new Kafka({ brokers: ['127.0.0.1:19092'], logLevel: logLevel.ERROR }).producer();
  await producer.connect();
  for (const [topic, compression] of [['none', CompressionTypes.None], ['gzip', CompressionTypes.GZIP]])
    await producer.send({ topic, compression, messages: records.map(r => ({
      key: r.key, value: r.value, timestamp: String(r.timestamp), headers: Object.fromEntries(r.headers) })) });
  await producer.disconnect();
})().catch(e => { console.error(e); process.exit(1); });
