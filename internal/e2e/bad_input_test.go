package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/klauspost/compress/zstd"
)

// badInput is a request with rejected events, or a rejected request.
type badInput struct {
	name   string
	header []string
	body   string
	status int
	good   []string // event_ids, of the events that are taken
	kept   []kept   // its rows of errors
}

// kept is one row of errors.
type kept struct {
	code, raw, encoding string
	index               int // -1: the request as a whole
}

// beside puts rejected events between good ones, line by line.
func beside(name string, pairs ...string) badInput {
	b := badInput{name: name, header: []string{"Content-Type", "application/x-ndjson"}, status: 202}
	var lines []string
	add := func() {
		id := fmt.Sprintf("%s %d", name, len(b.good))
		b.good = append(b.good, id)
		lines = append(lines, fmt.Sprintf(
			`{"name":"good","event_id":%q,"edge":[18446744073709551615,-9223372036854775808,"\u0000\u0001","\ud83d\ude00"]}`,
			id))
	}
	add()
	for i := 0; i < len(pairs); i += 2 {
		b.kept = append(b.kept, kept{code: pairs[i], raw: pairs[i+1], index: len(lines)})
		lines = append(lines, pairs[i+1])
		add()
	}
	b.body = strings.Join(lines, "\n")
	return b
}

// whole is a request that is rejected as a whole.
func whole(name string, status int, code, body string, header ...string) badInput {
	k := kept{code: code, raw: body, index: -1}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Content-Encoding" {
			k.encoding = header[i+1]
		}
	}
	return badInput{name: name, header: header, body: body, status: status, kept: []kept{k}}
}

func gzipped(body string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, body)
	w.Close()
	return b.String()
}

func zstded(body string) string {
	w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return string(w.EncodeAll([]byte(body), nil))
}

func utf16ed(text string, order binary.AppendByteOrder) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

func binaryBytes(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		if b[i] = byte(r.Uint32()); b[i] == '\n' {
			b[i] = 0
		}
	}
	b[0], b[n-1] = 0xff, 0x00 // no white space at the ends, which belongs to no event
	return string(b)
}

func badInputs() []badInput {
	const good = `{"name":"good"}`
	nested := func(n int) string {
		return `{"name":"deep","v":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}"
	}
	all := []badInput{
		beside("malformed",
			"invalid_json", `{"name":"x",`,
			"invalid_json", `{"name":"x"]}`,
			"invalid_json", `{'name':'x'}`,
			"invalid_json", `{"name":"x","v":NaN}`,
			"invalid_json", `{"name":"x","v":01}`,
			"invalid_json", `{"name":"x","v":"\x"}`,
			"invalid_json", `{"name":"x","v":[1}`,
			"invalid_json", `garbage`, "invalid_json", `not json at all`),
		beside("wrong types",
			"not_an_object", `1`, "not_an_object", `"x"`, "not_an_object", `null`,
			"wrong_type", `{"name":{}}`, "wrong_type", `{"name":"x","timestamp":[]}`, "wrong_type",
			`{"name":"x","user_id":true}`,
			"missing_name", `{}`, "missing_name", `{"name":null}`, "field_too_long", `{"name":"`+strings.Repeat("n", 257)+`"}`,
			"invalid_timestamp", `{"name":"x","timestamp":"yesterday"}`, "invalid_timestamp", `{"name":"x","timestamp":1e300}`),
		beside("control characters",
			"invalid_json", "{\"name\":\"x\",\"v\":\"a\x00b\"}", "invalid_json", "{\"name\":\"x\",\"v\":\"\x01\x1f\"}",
			"invalid_json", "{\"name\":\"x\",\x00\"v\":1}",
			"nul_character", `{"name":"x","a\u0000b":1}`),
		beside("numbers",
			"number_out_of_range", `{"name":"x","v":1e999}`, "number_out_of_range", `{"name":"x","v":-1e400}`,
			"number_out_of_range", `{"name":"x","v":18446744073709551616}`,
			"number_out_of_range", `{"name":"x","v":-9223372036854775809}`, "number_out_of_range",
			`{"name":"x","v":`+strings.Repeat("9", 5000)+`}`),
		beside("duplicate keys",
			"duplicate_key", `{"name":"x","a":1,"a":2}`, "duplicate_key", `{"name":"x","a":1,"\u0061":2}`, "duplicate_key",
			`{"name":"x","v":{"b":[{"c":1,"c":1}]}}`,
			"duplicate_key", `{"name":"x","a":1,"properties":{"a":2}}`),
		beside("too deep", "too_deep", nested(64), "too_deep", nested(10_000)),
		beside("brackets", "too_deep", `{"v":`+strings.Repeat("[", 500_000)+strings.Repeat("]", 500_000)+"}", "invalid_json",
			`{"v":`+strings.Repeat("[", 1_000_000)),
		beside("invalid UTF-8", "invalid_utf8", "{\"name\":\"x\",\"v\":\"\xff\"}", "invalid_utf8",
			"{\"name\":\"x\",\"v\":\"\xed\xa0\"}", "invalid_utf8", "{\"name\":\"x\",\"v\":\"\xc0\xaf\"}",
			"invalid_utf8", "{\"name\":\"\xf5\x80\x80\x80\"}"),
		beside("binary", "invalid_json", binaryBytes(5000)),
		beside("event too large", "event_too_large", `{"name":"x","v":"`+strings.Repeat("v", 3<<20)+`"}`),
		beside("a blob that is no text", "invalid_json", binaryBytes(1<<20+1)),
	}
	for i, text := range []string{
		utf16ed(good, binary.LittleEndian), utf16ed(good, binary.BigEndian),
		utf16ed("\uFEFF"+good, binary.LittleEndian), utf16ed("\uFEFF"+good, binary.BigEndian),
	} {
		b := whole(fmt.Sprint("UTF-16 ", i), 400, "invalid_json", text)
		b.kept[0].index = 0 // the ends of events in such a text are unknown, so it counts as one
		all = append(all, b)
	}
	array := badInput{name: "array", status: 202, good: []string{"in the array", "behind it"},
		body: `[{"name":"good","event_id":"in the array"},{"name":x},{"name":"y","v":1e400},{"name":"y","event_id":"behind it","v":"cut \ud83d","k\ude00":1}]`,
		kept: []kept{{"invalid_json", `{"name":x}`, "", 1}, {"number_out_of_range", `{"name":"y","v":1e400}`, "", 2}}}
	packed := beside("compressed", "invalid_json", "{\"name\":\"x\",\"v\":\"\x00\"}", "too_deep", nested(100))
	packed.body = gzipped(packed.body)
	packed.header = append(packed.header, "Content-Encoding", "gzip")
	gz, bomb := gzipped(good), strings.Repeat("\x00", 17<<20)
	all = append(all, array, packed,
		whole("empty", 400, "empty_body", ""),
		whole("only space", 400, "empty_body", " \r\n\t "),
		whole("truncated gzip", 400, "invalid_encoding", gz[:len(gz)-9], "Content-Encoding", "gzip"),
		whole("gzip without its checksum", 400, "invalid_encoding", gz[:len(gz)-8], "Content-Encoding", "gzip"),
		whole("gzip with garbage behind it", 400, "invalid_encoding", gz+"garbage", "Content-Encoding", "gzip"),
		whole("gzip that is none", 400, "invalid_encoding", good, "Content-Encoding", "gzip"),
		whole("zstd with garbage behind it", 400, "invalid_encoding", zstded(good)+"garbage", "Content-Encoding", "zstd"),
		whole("truncated zstd", 400, "invalid_encoding", zstded(good)[:12], "Content-Encoding", "zstd"),
		whole("gzip bomb", 413, "decoded_too_large", gzipped(bomb), "Content-Encoding", "gzip"),
		whole("zstd bomb", 413, "decoded_too_large", zstded(bomb), "Content-Encoding", "zstd"),
		whole("too many events", 413, "too_many_events", gzipped(strings.Repeat(good+"\n", 1001)), "Content-Encoding",
			"gzip"),
		whole("unknown encoding", 415, "unsupported_encoding", "\x0b\x02\x80x\x03", "Content-Encoding", "br"),
		whole("wrong charset", 415, "unsupported_charset", utf16ed(good, binary.LittleEndian), "Content-Type",
			"application/json; charset=utf-16"),
		whole("wrong type", 415, "unsupported_media_type", "<event/>", "Content-Type", "text/xml"),
		whole("wrong type, a blob", 415, "unsupported_media_type", binaryBytes(2<<20), "Content-Type", "image/png"),
		whole("unknown key", 401, "unknown_key", good+"\n", "Authorization", "Bearer unknown"),
		whole("missing key", 401, "missing_key", gz, "Authorization", "", "Content-Encoding", "gzip"),
	)
	large := whole("larger than a body may be", 413, "body_too_large", strings.Repeat(" ", 4<<20+1), "Expect",
		"100-continue")
	large.kept[0].raw = "" // it was not read
	return append(all, large)
}

// For any input: status and code say what is wrong, every rejected byte is kept as sent, and the good events of the
// same requests are rows, once.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_RECEIVER_MAX_EVENT=2MiB", "PENSTOCK_RECEIVER_MAX_BODY=4MiB",
		"PENSTOCK_RECEIVER_MAX_DECODED=16MiB",
		"PENSTOCK_RECEIVER_MAX_EVENTS=1000", "PENSTOCK_ERRORS_MAX_MEMORY=64MiB")
	s.start("l1", "load")
	inputs := badInputs()
	requests := make([]string, len(inputs)) // their ids
	var events, failures uint64
	for i, in := range inputs {
		code, a := post(t, r.URL+"/v1/events?key=&durability=disk", in.body, in.header...)
		requests[i] = a.Request
		var got, want []string
		for _, k := range in.kept {
			want = append(want, fmt.Sprint(k.index, k.code))
		}
		for _, e := range a.Errors {
			got = append(got, fmt.Sprint(e.Index, e.Code))
		}
		if a.Error.Code != "" {
			got = append(got, fmt.Sprint(-1, a.Error.Code))
		}
		if code != in.status || a.Accepted != len(in.good) || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %d, accepted %d, %v; want %d, %d, %v", in.name, code, a.Accepted, got, in.status, len(in.good),
				want)
		}
		events += uint64(len(in.good))
		failures += uint64(len(in.kept))
	}
	s.rows("events", events)
	s.rows("errors", failures)
	for i, in := range inputs {
		for _, id := range in.good {
			if n := one[uint64](s, "SELECT count() FROM events WHERE properties.event_id.:String = ?", id); n != 1 {
				t.Errorf("%s: %q is %d rows", in.name, id, n)
			}
		}
		for _, k := range in.kept {
			s.checkKept(in.name, requests[i], k)
		}
	}
	if n := one[uint64](s, "SELECT countIf(raw_object != '') FROM errors"); n != 3 {
		t.Errorf("%d blobs, want 3", n)
	}
	if n := one[uint64](s,
		"SELECT count() FROM errors WHERE position(toString(properties), {key:String}) > 0 OR position(toString(context), "+
			"{key:String}) > 0", clickhouse.Named("key", key)); n != 0 {
		t.Errorf("the key stands in %d rows of errors", n)
	}
	if n := r.metric("penstock_errors_dropped_total"); n != 0 {
		t.Errorf("%v failures were dropped", n)
	}
	r.term()
}

// checkKept compares a row of errors, and its blob, with what was sent.
func (s *stack) checkKept(name, request string, want kept) {
	s.t.Helper()
	var raw, object, sum, encoding, project, method, path, message string
	var size int64
	var part []*int64
	err := s.db.QueryRow(s.t.Context(),
		"SELECT raw, raw_object, raw_range, raw_sha256, raw_bytes, content_encoding, project, method, path, message FROM "+
			"errors WHERE request_id = ? AND ifNull(`index`, -1) = ? AND code = ?",
		request, want.index, want.code).Scan(&raw, &object, &part, &sum, &size, &encoding, &project, &method, &path, &message)
	if err != nil {
		s.t.Errorf("%s, %d: %v", name, want.index, err)
		return
	}
	if object != "" {
		if raw != "" {
			s.t.Errorf("%s, %d: the raw bytes are in the record and in %s", name, want.index, object)
		}
		body, err := s.bucket().GetRange(s.t.Context(), object, *part[0], *part[1])
		if err != nil {
			s.t.Errorf("%s, %d: %v", name, want.index, err)
			return
		}
		blob, err := io.ReadAll(body)
		body.Close()
		if hash := sha256.Sum256(blob); err != nil || hex.EncodeToString(hash[:]) != sum {
			s.t.Errorf("%s, %d: the blob is not what the record says: %v", name, want.index, err)
		}
		raw = string(blob)
	}
	if raw != want.raw || size != int64(len(want.raw)) || encoding != want.encoding {
		s.t.Errorf("%s, %d: kept %d (%d) bytes %.60q in %q, sent %d bytes %.60q in %q", name, want.index, len(raw), size, raw,
			encoding, len(want.raw), want.raw, want.encoding)
	}
	known := want.code != "unknown_key" && want.code != "missing_key"
	if message == "" || method != "POST" || path != "/v1/events" || known != (project == "test") {
		s.t.Errorf("%s, %d: message %q, method %q, path %q, project %q", name, want.index, message, method, path, project)
	}
}
