package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/penstock/penstock/internal/testing/npm"
	"github.com/penstock/penstock/receiver/protocol/otlpgrpc"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// sums are the totals of a client's calls.
type sums struct {
	Calls, Input, Cached, Output, Reasoning uint64
	Cost                                    float64
}

func (a sums) equal(b sums) bool {
	cost := math.Abs(a.Cost-b.Cost) < 1e-9
	a.Cost, b.Cost = 0, 0
	return a == b && cost
}

// TestLLMClients has the clients that LLM applications use today make 1,000 calls,
// through a proxy that fails three times: they are 1,000 calls with their tokens
// and costs.
func TestLLMClients(t *testing.T) {
	t.Parallel()
	const each = 250
	dir := npm.Install(t, "clients/llm/package.json")
	s := newStack(t)
	s.config(`llm: {prices: [{model: "priced-*", input: 2.5, cached_input: 1.25, output: 10}]}`)
	s.must("setup")
	grpcAddress := address(t)
	r := s.start("r1", "receive", "PENSTOCK_RECEIVER_OTLP_GRPC_LISTEN="+grpcAddress)
	s.start("l1", "load")
	script := func(name string) func(t *testing.T, model string) sums {
		return func(t *testing.T, model string) sums {
			p := newTrouble(t, r.URL)
			got := runLLMClient(t, dir, name, p.URL, model, each)
			if p.seen < 4 {
				t.Errorf("%d requests came: the client did not send again", p.seen)
			}
			return got
		}
	}
	var all uint64
	for _, c := range []struct {
		name, model string
		run         func(t *testing.T, model string) sums
	}{
		{"langfuse", "told", script("langfuse")}, // it says what it cost
		{"vercel", "priced-vercel", script("vercel")},
		{"openai", "priced-openai", script("openai")},
		{"otlp-grpc", "priced-grpc", func(t *testing.T, model string) sums {
			return sendByGRPC(t, grpcAddress, model,
				each)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.run(t, c.model)
			all += want.Calls
			var got sums
			eventually(t, 30*time.Second, "calls of "+c.name, func() error {
				row := s.db.QueryRow(t.Context(), `SELECT count(), toUInt64(sum(input_tokens)), toUInt64(sum(cached_tokens)),
					toUInt64(sum(output_tokens)), toUInt64(sum(reasoning_tokens)), ifNull(sum(cost_usd), 0)
					FROM llm_calls WHERE model = {model:String} AND user_id = {user:String} AND conversation = 's-1' AND status = 'ok'`, named("model", c.model), named("user", "u-"+c.model))
				if err := row.Scan(&got.Calls, &got.Input, &got.Cached, &got.Output, &got.Reasoning, &got.Cost); err != nil {
					return err
				}
				if !got.equal(want) {
					return fmt.Errorf("got %+v, want %+v", got, want)
				}
				return nil
			})
		})
	}
	time.Sleep(2 * time.Second) // a roll and a load
	if n := one[uint64](s, "SELECT count() FROM llm_calls"); n != all || n != 4*each {
		t.Errorf("%d calls, want %d", n, 4*each)
	}
}

// runLLMClient runs a script, and returns the sums that it prints.
func runLLMClient(t *testing.T, dir, client, target, model string, count int) (got sums) {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("clients/llm", client+".js"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", script, target, key, model, fmt.Sprint(count))
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, said.Bytes())
	}
	return got
}

// sendByGRPC sends calls with OpenTelemetry's exporter for Go, each with an agent
// that sums them up above it.
func sendByGRPC(t *testing.T, target, model string, count int) (sent sums) {
	t.Helper()
	proxy, seen := newGRPCTrouble(t, target)
	exporter, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpoint(proxy), otlptracegrpc.WithInsecure(),
		otlptracegrpc.WithCompressor("gzip"),
		otlptracegrpc.WithHeaders(map[string]string{"authorization": "Bearer " + key}),
		otlptracegrpc.WithTimeout(time.Minute),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: 100 * time.Millisecond,
			MaxInterval: time.Second, MaxElapsedTime: time.Minute}))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter, sdktrace.WithMaxExportBatchSize(100),
		sdktrace.WithExportTimeout(time.Minute), sdktrace.WithMaxQueueSize(10*count)))
	tracer := provider.Tracer("agents")
	common := []attribute.KeyValue{attribute.String("user.id", "u-"+model), attribute.String("session.id", "s-1"),
		attribute.String("gen_ai.request.model", model)}
	for n := range count {
		input := 100 + n
		usage := []attribute.KeyValue{
			attribute.Int("gen_ai.usage.input_tokens", input), attribute.Int("gen_ai.usage.cache_read.input_tokens", 60),
			attribute.Int("gen_ai.usage.output_tokens", 20), attribute.Int("gen_ai.usage.reasoning.output_tokens", 5),
		}
		ctx, agent := tracer.Start(t.Context(), "invoke_agent")
		agent.SetAttributes(append(append(usage, common...), attribute.String("gen_ai.operation.name", "invoke_agent"))...)
		_, call := tracer.Start(ctx, "chat "+model)
		call.SetAttributes(append(append(usage, common...), attribute.String("gen_ai.operation.name", "chat"))...)
		call.End()
		agent.End()
		sent.Calls++
		sent.Input += uint64(input)
		sent.Cached, sent.Output, sent.Reasoning = sent.Cached+60, sent.Output+20, sent.Reasoning+5
		sent.Cost += (float64(input-60)*2.5 + 60*1.25 + 20*10) / 1e6
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Errorf("the exporter: %v", err)
	}
	if n := seen.Load(); n < 4 {
		t.Errorf("%d calls came: the client did not send again", n)
	}
	return sent
}

type connKey struct{}

// newGRPCTrouble is trouble for OTLP over gRPC: the first two calls are answered
// as by a receiver that cannot store anything, the third reaches the real one,
// and then its connection is cut.
func newGRPCTrouble(t *testing.T, target string) (addr string, seen *atomic.Int32) {
	t.Helper()
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	forward.Transport = &http.Transport{Protocols: &h2c}
	forward.FlushInterval = -1
	o := receivertest.Options(tenant.Key{Project: "test", Hash: tenant.HashKey(key)})
	o.RetryAfter = time.Second
	full := otlpgrpc.Handler(receivertest.New(t, o, away{}))
	seen = &atomic.Int32{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch n := seen.Add(1); {
		case n <= 2:
			full.ServeHTTP(w, req)
		case n == 3:
			forward.ServeHTTP(httptest.NewRecorder(), req)
			req.Context().Value(connKey{}).(net.Conn).Close()
		default:
			forward.ServeHTTP(w, req)
		}
	}))
	server.Config.Protocols = &h2c
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx,
			connKey{}, c)
	}
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), seen
}
