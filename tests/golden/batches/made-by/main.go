// A fake broker that writes the record batches of every produce request to files, and the two Go
// clients that send to it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

type rec struct {
	Timestamp int64       `json:"timestamp"`
	Key       *string     `json:"key"`
	Value     *string     `json:"value"`
	Headers   [][2]string `json:"headers"`
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	out, serve := os.Args[1], len(os.Args) > 2
	raw, err := os.ReadFile("/tmp/golden/records.json")
	must(err)
	var recs []rec
	must(json.Unmarshal(raw, &recs))
	c, err := kfake.NewCluster(kfake.Ports(19092), kfake.NumBrokers(1), kfake.SeedTopics(1,
		"none", "gzip", "snappy", "lz4", "zstd"))
	must(err)
	defer c.Close()
	var mu sync.Mutex
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := r.(*kmsg.ProduceRequest)
		mu.Lock()
		defer mu.Unlock()
		for _, t := range req.Topics {
			name := t.Topic
			for _, p := range t.Partitions {
				who, _ := os.ReadFile("/tmp/golden/who")
				if name == "" {
					name = "unnamed"
				}
				f, err := os.OpenFile(filepath.Join(out, string(who)+"-"+name+".bin"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
				must(err)
				f.Write(p.Records)
				f.Close()
				fmt.Println(string(who), name, len(p.Records), "v", req.Version)
			}
		}
		return nil, nil, false
	})
	if serve {
		fmt.Println("ready")
		time.Sleep(90 * time.Second)
		return
	}
	franz(recs)
	saramaSend(recs)
}

func str(s *string) []byte {
	if s == nil {
		return nil
	}
	return []byte(*s)
}

func franz(recs []rec) {
	must(os.WriteFile("/tmp/golden/who", []byte("franz-go"), 0o644))
	for name, codec := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:19092"), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(300*time.Millisecond), kgo.DefaultProduceTopic(name), kgo.MaxVersions(kversion.V3_0_0()))
		must(err)
		var wg sync.WaitGroup
		for _, r := range recs {
			k := &kgo.Record{Key: str(r.Key), Value: str(r.Value), Timestamp: time.UnixMilli(r.Timestamp)}
			for _, h := range r.Headers {
				k.Headers = append(k.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
			}
			wg.Add(1)
			cl.Produce(context.Background(), k, func(_ *kgo.Record, err error) { must(err); wg.Done() })
		}
		wg.Wait()
		cl.Close()
	}
}

func saramaSend(recs []rec) {
	must(os.WriteFile("/tmp/golden/who", []byte("sarama"), 0o644))
	for name, codec := range map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD} {
		cfg := sarama.NewConfig()
		cfg.Version = sarama.V2_8_0_0
		cfg.Producer.Compression = codec
		cfg.Producer.Flush.Messages = len(recs)
		cfg.Producer.Return.Successes = true
		p, err := sarama.NewAsyncProducer([]string{"127.0.0.1:19092"}, cfg)
		must(err)
		for _, r := range recs {
			m := &sarama.ProducerMessage{Topic: name, Timestamp: time.UnixMilli(r.Timestamp)}
			if r.Key != nil {
				m.Key = sarama.StringEncoder(*r.Key)
			}
			if r.Value != nil {
				m.Value = sarama.StringEncoder(*r.Value)
			}
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h[0]), Value: []byte(h[1])})
			}
			p.Input() <- m
		}
		for range recs {
			select {
			case <-p.Successes():
			case e := <-p.Errors():
				panic(e)
			}
		}
		must(p.Close())
	}
}
