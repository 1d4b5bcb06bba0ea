// Record batches as Kafka's own Java code builds them: every codec, and the kinds of batch that only
// a broker writes (append time, transaction marker, compacted with gaps, delete horizon).
import com.fasterxml.jackson.databind.*;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.utils.BufferSupplier;

public class Golden {
    static byte[] bytes(JsonNode n) { return n.isNull() ? null : n.asText().getBytes(StandardCharsets.UTF_8); }

    static void append(MemoryRecordsBuilder b, JsonNode all) {
        for (JsonNode r : all) {
            List<Header> hs = new ArrayList<>();
            for (JsonNode h : r.get("headers")) hs.add(new RecordHeader(h.get(0).asText(), bytes(h.get(1))));
            b.append(r.get("timestamp").asLong(), bytes(r.get("key")), bytes(r.get("value")), hs.toArray(new Header[0]));
        }
    }

    static void save(String out, String name, MemoryRecords records) throws Exception {
        ByteBuffer d = records.buffer().duplicate();
        byte[] a = new byte[d.remaining()];
        d.get(a);
        Files.write(Path.of(out, "java-" + name + ".bin"), a);
        System.out.println(name + " " + a.length);
    }

    static MemoryRecordsBuilder builder(Compression c, TimestampType t, long base, long appendTime, long pid, short epoch, int seq, boolean txn, long deleteHorizon) {
        return new MemoryRecordsBuilder(new org.apache.kafka.common.utils.ByteBufferOutputStream(ByteBuffer.allocate(4096)), RecordBatch.MAGIC_VALUE_V2, c, t, base, appendTime, pid, epoch, seq, txn, false, 11, 4096, deleteHorizon);
    }

    public static void main(String[] args) throws Exception {
        String out = args[0];
        JsonNode recs = new ObjectMapper().readTree(new File(args[1]));
        Map<String, Compression> codecs = new LinkedHashMap<>();
        codecs.put("none", Compression.NONE);
        codecs.put("gzip", Compression.gzip().build());
        codecs.put("snappy", Compression.snappy().build());
        codecs.put("lz4", Compression.lz4().build());
        codecs.put("zstd", Compression.zstd().build());
        for (var e : codecs.entrySet()) {
            MemoryRecordsBuilder b = builder(e.getValue(), TimestampType.CREATE_TIME, 0, -1, -1, (short) -1, -1, false, -1);
            append(b, recs);
            save(out, e.getKey(), b.build());
        }
        MemoryRecordsBuilder b = builder(Compression.NONE, TimestampType.LOG_APPEND_TIME, 5000, 1700000099999L, -1, (short) -1, -1, false, -1);
        append(b, recs);
        save(out, "append-time", b.build());
        b = builder(codecs.get("zstd"), TimestampType.CREATE_TIME, 100, -1, 4242, (short) 3, Integer.MAX_VALUE - 2, true, -1);
        append(b, recs);
        save(out, "transactional", b.build());
        save(out, "commit-marker", MemoryRecords.withEndTransactionMarker(112, 1700000050000L, 11, 4242, (short) 3, new EndTransactionMarker(ControlRecordType.COMMIT, 9)));
        b = builder(codecs.get("lz4"), TimestampType.CREATE_TIME, 0, -1, -1, (short) -1, -1, false, -1);
        append(b, recs);
        MemoryRecords whole = b.build();
        for (boolean horizon : new boolean[] {false, true}) {
            MemoryRecords.RecordFilter filter = new MemoryRecords.RecordFilter(1700000500000L, 1000) {
                @Override protected BatchRetentionResult checkBatchRetention(RecordBatch batch) {
                    return new BatchRetentionResult(BatchRetention.DELETE_EMPTY, horizon);
                }
                @Override protected boolean shouldRetainRecord(RecordBatch batch, org.apache.kafka.common.record.Record r) {
                    return r.offset() % 3 == 1 || (horizon && r.offset() == 6);
                }
            };
            ByteBuffer to = ByteBuffer.allocate(8192);
            whole.filterTo(filter, to, BufferSupplier.NO_CACHING);
            to.flip();
            save(out, horizon ? "delete-horizon" : "compacted", MemoryRecords.readableRecords(to));
        }
    }
}
