package jetstream

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/queue/queuetest"
	"github.com/penstock/penstock/internal/testing/servers"
)

func TestConformance(t *testing.T) {
	n := servers.NATS(t)
	// The streams' names are fixed, so the tests of the suite get pipelines of their own.
	names := make(chan string, 100)
	for i := range cap(names) {
		names <- fmt.Sprint("suite", i)
	}
	queuetest.Test(t, nil, func(t *testing.T) queuetest.Queue[*Message] {
		const silence = time.Second
		q, err := Connect(Options{URL: n.URL(), AckWait: silence, MaxAge: time.Hour, MaxBytes: 1 << 20, Replicas: 1},
			"test", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(q.Close)
		spec := pipeline.Spec{Name: <-names}
		if err := q.Setup(t.Context(), []pipeline.Spec{spec}); err != nil {
			t.Fatal(err)
		}
		add := func(body string) error {
			_, err := q.js.Publish(t.Context(), Subject(spec), []byte(body))
			return err
		}
		return queuetest.Queue[*Message]{
			Silence:  silence,
			Patience: 20 * time.Second,
			Add:      func(key string) error { return add(string(queue.Format(pipeline.Notification{Key: key}))) },
			Key: func(m *Message) (string, error) {
				all, err := queue.Parse(m.Body())
				if err != nil || len(all) != 1 {
					return "", errors.Join(err, fmt.Errorf("%d notifications in %q", len(all), m.Body()))
				}
				return all[0].Key, nil
			},
			Receiver: func() queuetest.Receive[*Message] { return q.Consumer(spec).Receive },
			AddBody:  add,
			Body:     func(m *Message) string { return string(m.Body()) },
		}
	})
}
