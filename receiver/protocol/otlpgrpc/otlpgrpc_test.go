package otlpgrpc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// serve starts a server, and connects gRPC's own library to it.
func serve(t *testing.T, s *intake.Sink, change func(*receiver.Options)) (*grpc.ClientConn, *http.Server) {
	t.Helper()
	o := receivertest.Options(tenant.Key{Project: "p", Hash: tenant.HashKey("k")})
	o.MaxMemory, o.ReadTimeout, o.RetryAfter = 32<<20, 5*time.Second, 3*time.Second
	if change != nil {
		change(&o)
	}
	server := &http.Server{Protocols: Protocols(),
		Handler: Handler(receivertest.New(t, o, s))}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended: %v", err)
		}
	})
	return conn, server
}

// codec passes messages and answers as bytes.
type codec struct{}

func (codec) Name() string                       { return "proto" }
func (codec) Marshal(v any) ([]byte, error)      { return proto.Marshal(v.(proto.Message)) }
func (codec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = slices.Clone(data); return nil }

const traces, logs, metrics = service + "trace.v1.TraceService/Export", service + "logs.v1.LogsService/Export",
	service + "metrics.v1.MetricsService/Export"

// export calls a method with a message, and returns the answer's bytes.
func export(ctx context.Context, conn *grpc.ClientConn, method string, m proto.Message,
	options ...grpc.CallOption) (string, error) {
	var answer []byte
	err := conn.Invoke(ctx, method, m, &answer, append(options, grpc.ForceCodec(codec{}))...)
	return string(answer), err
}

func spans(names ...string) *tracepb.TracesData {
	var all []*tracepb.Span
	for i, name := range names {
		all = append(all, &tracepb.Span{TraceId: []byte("0123456789abcdef"), SpanId: []byte{1, 2, 3, 4, 5, 6, 7,
			byte(i + 1)}, Name: name})
	}
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: all}}}}}
}

func withKey(t *testing.T, key string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key)
}

func TestExport(t *testing.T) {
	s := &intake.Sink{}
	conn, _ := serve(t, s, nil)
	for range 2 {
		if answer, err := export(withKey(t, "k"), conn, traces, spans("plain")); err != nil || answer != "" {
			t.Fatalf("got %q, %v", answer, err)
		}
	}
	if _, err := export(withKey(t, "k"), conn, traces, spans(strings.Repeat("z", 200)),
		grpc.UseCompressor(gzip.Name)); err != nil {
		t.Errorf("gzip: %v", err)
	}
	records := &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
		ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{
			{EventName: "record", Body: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "hi"}}}}}}}}}
	if _, err := export(metadata.AppendToOutgoingContext(t.Context(), "x-api-key", "k"), conn, logs, records); err != nil {
		t.Errorf("logs: %v", err)
	}
	if _, err := export(withKey(t, "k"), conn, traces, &tracepb.TracesData{}); err != nil {
		t.Errorf("an empty call: %v", err)
	}
	if want := "plain plain " + strings.Repeat("z", 200) + " record"; s.Names() != want {
		t.Errorf("got %q, want %q", s.Names(), want)
	}
	if got := string(s.Events[0].Context); !strings.Contains(got, `"ip":"127.0.0.1"`) || !strings.Contains(got, "grpc-go") {
		t.Errorf("the context is %s", got)
	}
	answer, err := export(withKey(t, "k"), conn, traces,
		&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{
			Spans: []*tracepb.Span{{Name: "no id"}, spans("good").ResourceSpans[0].ScopeSpans[0].Spans[0]}}}}}})
	if err != nil || !strings.Contains(answer, "\x08\x01\x12") || !strings.Contains(answer,
		"invalid_id") { // rejected_spans: 1, error_message
		t.Errorf("a partial success: got %q, %v", answer, err)
	}
}

func TestRefusedCalls(t *testing.T) {
	s := &intake.Sink{}
	conn, _ := serve(t, s, nil)
	check := func(what string, err error, code codes.Code, says string, retry time.Duration) {
		t.Helper()
		status := grpcstatus.Convert(err)
		if status.Code() != code || !strings.Contains(status.Message(), says) {
			t.Errorf("%s: got %v, want %s with %q", what, err, code, says)
		}
		var delay time.Duration
		for _, d := range status.Details() {
			if info, is := d.(*errdetails.RetryInfo); is {
				delay = info.RetryDelay.AsDuration()
			}
		}
		if delay != retry {
			t.Errorf("%s: send again after %s, want %s", what, delay, retry)
		}
	}
	_, err := export(t.Context(), conn, traces, spans("a"))
	check("no key", err, codes.Unauthenticated, "missing_key", 0)
	_, err = export(withKey(t, "wrong"), conn, traces, spans("a"))
	check("a wrong key", err, codes.Unauthenticated, "unknown_key", 0)
	_, err = export(withKey(t, "k"), conn, traces, spans(strings.Repeat("a", 2<<20)))
	check("a large message", err, codes.InvalidArgument, "too_large", 0)
	_, err = export(withKey(t, "k"), conn, traces, spans(strings.Repeat("a", 4<<20)), grpc.UseCompressor(gzip.Name))
	check("a message that is large when it is decompressed", err, codes.InvalidArgument, "too_large", 0)
	_, err = export(withKey(t, "k"), conn, traces,
		&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
			ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: "100 % ü"}}}}}}})
	check("all refused", err, codes.InvalidArgument, "invalid_id", 0)
	_, err = export(withKey(t, "k"), conn, metrics, spans())
	check("metrics", err, codes.Unimplemented, "metrics are no events", 0)
	_, err = export(withKey(t, "k"), conn, "/other.Service/Do", spans())
	check("another service", err, codes.Unimplemented, "/other.Service/Do is not served", 0)
	s.Err = errors.New("away")
	_, err = export(withKey(t, "k"), conn, traces, spans("a"))
	check("no room", err, codes.Unavailable, "unavailable", 3*time.Second)
	if len(s.Events) != 0 {
		t.Errorf("%q were taken", s.Names())
	}
}

// A client retries a limited call, because the answer has RetryInfo.
func TestLimitedCalls(t *testing.T) {
	for _, tt := range []struct {
		status int
		after  string
		code   uint64
		retry  time.Duration
	}{
		{http.StatusTooManyRequests, "7", resourceExhausted, 7 * time.Second}, {http.StatusServiceUnavailable, "",
			unavailable, time.Second},
		{http.StatusForbidden, "7", permissionDenied, 0}, {http.StatusRequestEntityTooLarge, "", invalidArgument, 0},
		{http.StatusUnsupportedMediaType, "", unimplemented, 0}, {http.StatusTeapot, "", unknown, 0},
	} {
		got := translated(&recorder{status: tt.status, header: http.Header{"Retry-After": {tt.after}}})
		if got.code != tt.code || got.retry != tt.retry {
			t.Errorf("%d: got %+v, want %+v", tt.status, got, tt)
		}
	}
}

func TestNoGRPC(t *testing.T) {
	_, server := serve(t, &intake.Sink{}, nil)
	for _, kind := range []string{"application/json", "application/grpcweb", ""} {
		if isGRPC(kind) {
			t.Errorf("%q is taken for gRPC", kind)
		}
	}
	for _, kind := range []string{"application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"} {
		if !isGRPC(kind) {
			t.Errorf("%q is not taken for gRPC", kind)
		}
	}
	if server.Protocols.HTTP1() {
		t.Error("the port speaks HTTP/1, which has no trailers that clients of gRPC read")
	}
}

// When the server stops, it still answers running calls.
func TestGracefulStop(t *testing.T) {
	s := &intake.Sink{}
	s.Mu.Lock() // Append waits
	conn, server := serve(t, s, nil)
	done := make(chan error, 1)
	go func() {
		_, err := export(withKey(t, "k"), conn, traces, spans("a"))
		done <- err
	}()
	time.Sleep(200 * time.Millisecond)
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(t.Context()) }()
	time.Sleep(100 * time.Millisecond)
	s.Mu.Unlock()
	if err := <-done; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
}

// A call without a message ends.
func TestPrefixTimeout(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		defer out.Close()
		req := httptest.NewRequest(http.MethodPost, service+"trace.v1.TraceService/Export", in)
		req.Header.Set("Content-Type", "application/grpc")
		w := &deadlines{httptest.NewRecorder(), in}
		began := time.Now()
		Handler(http.NotFoundHandler()).ServeHTTP(w, req)
		if got := time.Since(began); got != prefixTimeout {
			t.Errorf("it ended after %s, want %s", got, prefixTimeout)
		}
		if got := w.Header().Get(http.TrailerPrefix + "Grpc-Status"); got != "3" {
			t.Errorf("got status %s, want 3", got)
		}
	})
}

// deadlines ends a pipe at the read deadline.
type deadlines struct {
	http.ResponseWriter
	body *io.PipeReader
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	time.AfterFunc(time.Until(t), func() { d.body.CloseWithError(os.ErrDeadlineExceeded) })
	return nil
}
