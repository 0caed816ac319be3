package app

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/loader"
)

// What cannot be reached is named, without the password in its URL.
func TestSecretsInErrors(t *testing.T) {
	const secret = "S3cretPw"
	for _, env := range [][]string{
		{"PENSTOCK_QUEUE_URL=nats://svc:" + secret + "@127.0.0.1:4"},
		{"PENSTOCK_QUEUE_URL=nats://" + secret + "@127.0.0.1:4"},
		{"PENSTOCK_QUEUE_URL=nats://svc:" + secret + "%zz@127.0.0.1:4"},
		{"PENSTOCK_QUEUE_URL=nats://127.0.0.1:4,nats://svc:" + secret + "@127.0.0.1:5"},
		{"PENSTOCK_STORAGE_ENDPOINT=http://svc:" + secret + "@127.0.0.1:4", "PENSTOCK_STORAGE_NOTIFY=none"},
		{"PENSTOCK_STORAGE_ENDPOINT=http://svc:" + secret + "@127.0.0.1:4", "PENSTOCK_STORAGE_TLS_CA=/x"},
	} {
		t.Run(env[0], func(t *testing.T) {
			t.Parallel()
			cfg, err := config.Load("", append(env, "PENSTOCK_CLICKHOUSE_ADDRESSES=127.0.0.1:4",
				"PENSTOCK_CLICKHOUSE_PASSWORD="+secret))
			var said strings.Builder
			if err == nil {
				o, closeOperator := NewOperator(cfg, loader.NewIsolation(nil), slog.New(slog.DiscardHandler))
				defer closeOperator()
				if err := operate.Find("status").Show(brief(t), operate.Local(o), &struct{}{},
					operate.Output{Out: &said, Err: io.Discard}); err == nil {
					t.Error("status reports no error")
				}
				err = Setup(brief(t), cfg, false, &said)
			}
			if err == nil {
				t.Fatalf("%s: no error", env)
			}
			if text := said.String() + err.Error(); strings.Contains(text, secret) || !strings.Contains(text, "127.0.0.1:4") {
				t.Errorf("%s: printed %s", env, text)
			}
		})
	}
}

// brief ends long before the program would stop waiting for a server that is not there.
func brief(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
