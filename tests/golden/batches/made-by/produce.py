"""librdkafka's batches: sent to the fake broker, which writes them to files."""
import json, sys
from confluent_kafka import Producer

records = json.load(open("/tmp/golden/records.json"))
open("/tmp/golden/who", "w").write("librdkafka")
for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    p = Producer({"bootstrap.servers": "127.0.0.1:19092", "compression.type": codec, "linger.ms": 300,
                  "enable.idempotence": codec == "zstd"})
    for r in records:
        p.produce(codec, key=r["key"], value=r["value"], timestamp=r["timestamp"],
                  headers=[(k, v.encode()) for k, v in r["headers"]])
    assert p.flush(20) == 0
