package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
)

var errFull = errors.New("disk full")

// fullAfter accepts left bytes and then fails.
type fullAfter struct{ left int }

func (f *fullAfter) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// A failed write is always reported: wherever the disk is full, one of the calls fails.
func TestFullDisk(t *testing.T) {
	var events []pipeline.Event
	for i := range 2000 {
		text := fmt.Sprintf(`{"level":%d,"name":"player %d","ratio":%d.5}`, i, i*7919%2000, i)
		events = append(events, pipeline.Event{ID: pipeline.NewUUIDv7(int64(i)), Name: []byte("level"), Seq: uint64(i),
			Timestamp: pipeline.NoTime, ReceivedAt: 1795319112345, Properties: []byte(text), Context: []byte("{}")})
	}
	for _, format := range []pipeline.Format{pipeline.NDJSON, pipeline.Parquet} {
		write := func(left int) error {
			enc, err := NewEncoders().New(&fullAfter{left}, format, "r")
			if err != nil {
				return err
			}
			return errors.Join(enc.Encode(events), enc.Close())
		}
		size := 0
		for write(1<<size) != nil {
			size++
		}
		for left := 0; left < 1<<(size-1); left += 1 << max(0, size-5) {
			if err := write(left); !errors.Is(err, errFull) {
				t.Errorf("%s, room for %d bytes: %v, want %v", format, left, err, errFull)
			}
		}
	}
}

func TestUnknownFormats(t *testing.T) {
	if _, err := NewEncoders().New(&bytes.Buffer{}, "csv", "r"); err == nil || !strings.Contains(err.Error(), `"csv"`) {
		t.Errorf("encoder: %v", err)
	}
	if _, err := NewDecoder(strings.NewReader("x"), 1, "csv"); err == nil || !strings.Contains(err.Error(), `"csv"`) {
		t.Errorf("decoder: %v", err)
	}
	for _, format := range []pipeline.Format{pipeline.NDJSON, pipeline.Parquet} {
		if _, err := NewDecoder(strings.NewReader(""), 0, format); err == nil || !strings.Contains(err.Error(), "empty") {
			t.Errorf("%s of no bytes: %v", format, err)
		}
	}
}

// Lines longer than a buffer are joined; lines beyond the limit are an error.
func TestLines(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, tt := range []struct {
		text string
		want []string
		n    int
		err  string
	}{
		{"", nil, 1, "EOF"},
		{"a\nb", []string{"a", "b"}, 3, "EOF"},
		{"a\r\n\r\n\n b \n", []string{"a", " b "}, 5, "EOF"},
		{long + "\n" + long, []string{long, long}, 3, "EOF"},
		{"a\n" + long + "yy", []string{"a"}, 2, "a line is longer than 101 bytes"},
		{"a\n" + long + "y\nb", []string{"a"}, 2, "a line is longer than 101 bytes"},
	} {
		lines := Lines{In: bufio.NewReaderSize(strings.NewReader(tt.text), 16), Max: 101}
		var got []string
		var err error
		for {
			var line []byte
			if line, err = lines.Next(); err != nil {
				break
			}
			got = append(got, string(line))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err.Error() != tt.err || lines.N != tt.n {
			t.Errorf("%.40q: line %d, %v, want line %d, %s (-want +got):\n%s", tt.text, lines.N, err, tt.n, tt.err, diff)
		}
	}
}

// An event on a line is read back as it was.
func TestAppendLine(t *testing.T) {
	want := pipeline.Event{ID: pipeline.NewUUIDv7(5), Project: []byte("p\"q"), Name: []byte("n"), SessionID: []byte("s"),
		UserID: []byte("ü"), Timestamp: 1795319112001, ReceivedAt: 1795319112345, Receiver: []byte("r-1"), Seq: 1<<64 - 1,
		Properties: []byte(`{"a":[1,{"b":null}]}`), Context: []byte(`{"ip":"::1"}`)}
	line := AppendLine([]byte("before "), &want)
	text, ok := bytes.CutPrefix(line, []byte("before "))
	if !ok || !bytes.HasSuffix(line, []byte("}\n")) || bytes.Count(line, []byte("\n")) != 1 {
		t.Errorf("got %q", line)
	}
	d, err := newNDJSONDecoder(bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var got pipeline.Event
	if err := d.parse(&got, bytes.TrimSuffix(text, []byte("\n"))); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
