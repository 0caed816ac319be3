package jetstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/queue/queuetest"
	"github.com/penstock/penstock/internal/testing/servers"
)

const (
	silence  = time.Second
	patience = 20 * time.Second
)

func open(t *testing.T, url string) *Queue {
	t.Helper()
	q, err := Connect(Options{URL: url, AckWait: silence, MaxAge: time.Hour, MaxBytes: 1 << 20, Replicas: 1}, "test",
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

func TestConformance(t *testing.T) {
	n := servers.NATS(t)
	// The streams' names are fixed, so the tests of the suite get pipelines of their own.
	names := make(chan string, 100)
	for i := range cap(names) {
		names <- fmt.Sprint("suite", i)
	}
	queuetest.Test(t, nil, func(t *testing.T) queuetest.Queue {
		q, spec := open(t, n.URL()), pipeline.Spec{Name: <-names}
		if err := q.Setup(t.Context(), []pipeline.Spec{spec}, nil); err != nil {
			t.Fatal(err)
		}
		add := func(body string) error {
			_, err := q.js.Publish(t.Context(), Subject(spec), []byte(body))
			return err
		}
		return queuetest.Queue{
			Silence:  silence,
			Patience: patience,
			Add:      func(key string) error { return add(string(queue.Format(pipeline.Notification{Key: key}))) },
			Consumer: func() queue.Consumer { return q.Consumer(spec) },
			AddBody:  add,
		}
	})
}

func TestServerConformance(t *testing.T) {
	queuetest.TestServer(t, func(t *testing.T) queuetest.Server {
		n := servers.NATS(t)
		return queuetest.Server{
			Silence:  silence,
			Patience: patience,
			Connect:  func() queue.Queue { return open(t, n.URL()) },
			Away:     func() queue.Queue { return open(t, "nats://127.0.0.1:1") },
			Letters:  func() ([]pipeline.DeadLetter, error) { return letters(t, open(t, n.URL())) },
		}
	})
}

// letters reads the stream of dead letters.
func letters(t *testing.T, q *Queue) ([]pipeline.DeadLetter, error) {
	s, err := q.js.Stream(t.Context(), DeadLetterStream)
	if err != nil {
		return nil, err
	}
	var all []pipeline.DeadLetter
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var d pipeline.DeadLetter
		if err := json.Unmarshal(m.Data, &d); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}
