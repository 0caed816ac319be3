// Package otlpgrpc accepts OpenTelemetry's protocol over gRPC: https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
//
// It converts each Export call into a request of OTLP over HTTP within the process, and the HTTP answer into a gRPC
// status. A unary call is one HTTP/2 request with five bytes before the message
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), so net/http can serve it. A gRPC server library
// would hold each whole message in memory, before the key is known and outside the receiver's limits. Here the receiver
// streams the message like any body.
package otlpgrpc

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// gRPC codes: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
const (
	ok                = 0
	unknown           = 2
	invalidArgument   = 3
	permissionDenied  = 7
	resourceExhausted = 8
	unimplemented     = 12
	internal          = 13
	unavailable       = 14
	unauthenticated   = 16
)

const service = "/opentelemetry.proto.collector."

// methods maps the supported methods to HTTP paths.
var methods = map[string]string{
	service + "trace.v1.TraceService/Export": "/v1/traces",
	service + "logs.v1.LogsService/Export":   "/v1/logs",
}

// Protocols are the protocols for a server with Handler: HTTP/2 with and without TLS.
func Protocols() *http.Protocols {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	p.SetHTTP2(true)
	return &p
}

// prefixTimeout limits the wait for the five bytes before a message. OTLP's handler limits the rest.
const prefixTimeout = 10 * time.Second

// Handler serves gRPC calls with a handler for OTLP over HTTP.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodPost || !isGRPC(req.Header.Get("Content-Type")) {
			http.Error(w, "this port takes OTLP over gRPC: send application/grpc, "+
				"or OTLP over HTTP to the receiver's other port", http.StatusUnsupportedMediaType)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Accept-Encoding", "identity,gzip,zstd")
		answer := call(next, w, req)
		if answer.code == ok {
			prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(answer.message)))
			w.Write(append(prefix, answer.message...))
		}
		answer.trailers(w.Header())
	})
}

func isGRPC(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind, _, _ = strings.Cut(strings.TrimSpace(kind), "+")
	return kind == "application/grpc"
}

// call passes the message of a request to next.
func call(next http.Handler, w http.ResponseWriter, req *http.Request) answer {
	path, known := methods[req.URL.Path]
	switch {
	case strings.HasPrefix(req.URL.Path, service+"metrics."):
		return failed(unimplemented, "metrics are no events: send traces and logs, and set the exporter of metrics to none")
	case !known:
		return failed(unimplemented, fmt.Sprintf("%.200s is not served: send traces and logs of OTLP", req.URL.Path))
	}
	if limited, is := next.(interface {
		AdmitHead(*http.Request) (func(), bool)
	}); is {
		done, ok := limited.AdmitHead(req)
		if !ok {
			a := failed(unavailable, "too many requests are in memory now; send it again")
			a.retry = time.Second
			return a
		}
		defer done()
	}
	var prefix [5]byte
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(prefixTimeout))
	if _, err := io.ReadFull(req.Body, prefix[:]); err != nil {
		return failed(invalidArgument, "the call has no whole message: "+err.Error())
	}
	size := binary.BigEndian.Uint32(prefix[1:])
	inner := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: path}, Proto: req.Proto, ProtoMajor: req.ProtoMajor, Host: req.Host,
		Header: http.Header{}, RemoteAddr: req.RemoteAddr, ContentLength: int64(size), Body: message{req.Body,
			int64(size)}.reader(),
	}).WithContext(req.Context())
	for name, values := range req.Header { // metadata, the key among them
		if name != "Te" && !strings.HasPrefix(name, "Grpc-") && !strings.HasSuffix(name, "-Bin") {
			inner.Header[name] = values
		}
	}
	inner.Header.Set("Content-Type", "application/x-protobuf")
	inner.Header.Del("Content-Encoding")
	switch encoding := req.Header.Get("Grpc-Encoding"); {
	case prefix[0] > 1:
		return failed(invalidArgument, "the message's first byte is neither 0 nor 1")
	case prefix[0] == 1 && (encoding == "" || encoding == "identity"):
		return failed(invalidArgument, "the message is compressed and grpc-encoding does not say how")
	case prefix[0] == 1:
		inner.Header.Set("Content-Encoding", encoding)
	}
	got := &recorder{ResponseWriter: w, header: http.Header{}, status: http.StatusOK}
	next.ServeHTTP(got, inner)
	return translated(got)
}

// message is the unread part of a call's message.
type message struct {
	body io.ReadCloser
	left int64
}

// reader returns an error if the call ends before its message does.
func (m message) reader() io.ReadCloser { return &m }

func (m *message) Read(p []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	n, err := m.body.Read(p[:min(int64(len(p)), m.left)])
	if m.left -= int64(n); err == io.EOF && m.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (m *message) Close() error { return m.body.Close() }

// recorder records an answer. Deadlines are set on the call's own writer.
type recorder struct {
	http.ResponseWriter
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) FlushError() error           { return nil } // the trailers follow the answer
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// answer is the end of a call.
type answer struct {
	code    uint64
	text    string
	message []byte        // response of a successful call
	retry   time.Duration // when the client may retry; 0: never
}

func failed(code uint64, text string) answer { return answer{code: code, text: text} }

// translated converts an HTTP answer into a gRPC status. The body is an Export response or a google.rpc.Status.
func translated(got *recorder) answer {
	if got.status == http.StatusOK || got.status == http.StatusAccepted {
		return answer{message: got.body.Bytes()}
	}
	code, text := status(got.body.Bytes())
	switch got.status {
	case http.StatusUnauthorized:
		code = unauthenticated
	case http.StatusForbidden:
		code = permissionDenied
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		code = invalidArgument
	case http.StatusUnsupportedMediaType: // unsupported compression: messages are always protobuf here
		code = unimplemented
	case http.StatusTooManyRequests:
		code = resourceExhausted
	case http.StatusServiceUnavailable:
		code = unavailable
	default:
		if code == ok {
			code = unknown
		}
	}
	a := failed(code, text)
	if code == resourceExhausted || code == unavailable {
		seconds, err := strconv.Atoi(got.header.Get("Retry-After"))
		if err != nil || seconds < 1 {
			seconds = 1
		}
		a.retry = time.Duration(seconds) * time.Second
	}
	return a
}

// status reads code and message from a google.rpc.Status.
func status(b []byte) (code uint64, text string) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return internal, "the answer could not be read"
		}
		value := b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, value); n < 0 {
			return internal, "the answer could not be read"
		}
		switch {
		case number == 1 && kind == protowire.VarintType:
			code, _ = protowire.ConsumeVarint(value)
		case number == 2 && kind == protowire.BytesType:
			text, _ = protowire.ConsumeString(value)
		}
		b = value[n:]
	}
	return code, text
}

// trailers end the call. A client retries RESOURCE_EXHAUSTED only if there is a RetryInfo.
func (a answer) trailers(h http.Header) {
	h.Set(http.TrailerPrefix+"Grpc-Status", strconv.FormatUint(a.code, 10))
	if a.code == ok {
		return
	}
	h.Set(http.TrailerPrefix+"Grpc-Message", percentEncoded(a.text))
	if a.retry > 0 {
		h.Set(http.TrailerPrefix+"Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(a.details()))
	}
}

// details returns a google.rpc.Status with a google.rpc.RetryInfo.
func (a answer) details() []byte {
	delay := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(a.retry/time.Second))
	info := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), delay)
	packed := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType),
		"type.googleapis.com/google.rpc.RetryInfo")
	packed = protowire.AppendBytes(protowire.AppendTag(packed, 2, protowire.BytesType), info)
	w := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), a.code)
	w = protowire.AppendString(protowire.AppendTag(w, 2, protowire.BytesType), a.text)
	return protowire.AppendBytes(protowire.AppendTag(w, 3, protowire.BytesType), packed)
}

// percentEncoded encodes a message for a header, as the protocol requires.
func percentEncoded(text string) string {
	var w strings.Builder
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&w, "%%%02X", c)
		} else {
			w.WriteByte(c)
		}
	}
	return w.String()
}
