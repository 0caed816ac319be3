package document_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/receivertest"
)

// event is a text whose members a test gives to a writer.
type event struct {
	document.Writer
	members map[string]*jsonscan.Member
}

func begin(t *testing.T, threshold int, text string) *event {
	t.Helper()
	e := &event{members: map[string]*jsonscan.Member{}}
	e.Reset(threshold)
	scan := jsonscan.Scanner{MaxDepth: 100, LargeFrom: document.LargeFrom(threshold)}
	sent := []byte(text)
	members, n, err := scan.Object(sent)
	if err != nil || n != len(text) {
		t.Fatalf("%d bytes of %s: %v", n, text, err)
	}
	for i := range members {
		e.members[string(members[i].Key)] = &members[i]
	}
	e.Begin(0, sent, scan.Large(), !scan.Spaced())
	return e
}

// foreign is a member that a protocol has made.
func foreign(key, value string) *jsonscan.Member {
	m := &jsonscan.Member{Key: []byte(key), Value: []byte(value), Kind: jsonscan.Number}
	switch value[0] {
	case '"':
		m.Kind = jsonscan.String
	case '{':
		m.Kind = jsonscan.Object
	case 'n':
		m.Kind = jsonscan.Null
	}
	return m
}

func bytesBlob(text string) pipeline.Blob {
	return pipeline.Blob{Kind: pipeline.BlobFile, Size: int64(len(text)), Write: func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}}
}

// A row consists of the event's members, their parts, members that the protocol makes, and files.
func TestPieces(t *testing.T) {
	const text = `{"a":1,"b" : {"c":"x","d":` + "\n" + `[2]},"\u0065":"y","f":null,"g":{"h":{"i":3}}}`
	for _, c := range []struct {
		name string
		make func(e *event)
		want string
	}{
		{"nothing", func(*event) {}, `{}`},
		{"members in another order", func(e *event) {
			e.Property(e.members["e"])
			e.Property(e.members["a"])
		}, `{"\u0065":"y","a":1}`},
		{"an object's members behind a member", func(e *event) {
			e.Property(e.members["a"])
			e.Spread(e.members["b"])
		}, `{"a":1,"c":"x","d": [2]}`},
		{"an object's members alone", func(e *event) { e.Spread(e.members["b"]) }, `{"c":"x","d": [2]}`},
		{"null has no members", func(e *event) { e.Spread(e.members["f"]) }, `{}`},
		{"what is no object is a property", func(e *event) { e.Spread(e.members["a"]) }, `{"a":1}`},
		{"an object of the protocol's", func(e *event) {
			e.Spread(foreign("x", `{"y":1}`))
			e.Spread(foreign("x", `{}`))
			e.Property(e.members["a"])
		}, `{"y":1,"a":1}`},
		{"a value within a member", func(e *event) {
			in := jsonscan.Member{Key: []byte("h"), Value: e.members["g"].Value[5:12], Kind: jsonscan.Object}
			e.Property(&in)
		}, `{"h":{"i":3}}`},
		{"a value within a member, by another name", func(e *event) {
			in := jsonscan.Member{Key: []byte("other"), Value: e.members["g"].Value[5:12], Kind: jsonscan.Object}
			e.Property(&in)
		}, `{"other":{"i":3}}`},
		{"an envelope", func(e *event) {
			e.Keep(e.members["a"])
			e.Property(e.members["e"])
			e.Keep(e.members["f"]) // says nothing
			e.Keep(foreign("k", `"v"`))
		}, `{"\u0065":"y","$envelope":{"a":1,"k":"v"}}`},
		{"a text", func(e *event) { e.Text([]byte("t"), []byte(`{"x":"\n"}`)) }, `{"t":"{\"x\":\"\\n\"}"}`},
		{"a file", func(e *event) {
			e.Property(e.members["a"])
			e.Blob([]byte("file"), bytesBlob("bytes"), nil)
		}, `{"a":1,"file":null}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := begin(t, 0, text)
			c.make(e)
			row, _, _ := e.Row(nil)
			if diff := cmp.Diff(c.want, string(row)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A large text is a blob. AsSent shows the event whole, and the row has the blobs all the same.
func TestAsSent(t *testing.T) {
	large := strings.Repeat("z", 200)
	e := begin(t, 100, `{"a":"`+large+`","b":1}`)
	e.Property(e.members["a"])
	e.Property(foreign("made", `"`+large+`"`))
	e.Text([]byte("steps"), []byte(`["`+large+`"]`))
	e.Keep(e.members["b"])
	whole := `{"a":"` + large + `","made":"` + large + `","steps":"[\"` + large + `\"]","$envelope":{"b":1}}`
	holes := `{"a":null,"made":null,"steps":null,"$envelope":{"b":1}}`
	for _, c := range []struct {
		whole bool
		want  string
	}{{true, whole}, {false, holes}} {
		for range 2 {
			if err := e.AsSent(c.whole, func(row []byte) error {
				if diff := cmp.Diff(c.want, string(row)); diff != "" {
					t.Errorf("whole %v (-want +got):\n%s", c.whole, diff)
				}
				return io.ErrNoProgress
			}); !errors.Is(err, io.ErrNoProgress) {
				t.Errorf("got error %v, want that of the function", err)
			}
		}
	}
	if e.Cut() {
		t.Error("blobs of a row that was only looked at are left")
	}
	row, _, _ := e.Row(nil)
	if string(row) != holes || !e.Cut() || len(e.Blobs) != 3 {
		t.Fatalf("row %s, %d blobs", row, len(e.Blobs))
	}
	for i, want := range []string{large, large, `["` + large + `"]`} {
		var got bytes.Buffer
		if err := e.Blobs[i].Write(&got); err != nil || got.String() != want {
			t.Errorf("blob %d: got %q, %v", i, got.String(), err)
		}
	}
}

// The envelope's key is the protocol's own, so no property may have it, however it is written.
func TestEnvelopeTaken(t *testing.T) {
	for text, want := range map[string]bool{
		`{"x":1,"k":1}`: false, `{"$envelope":1,"k":1}`: true, `{"\u0024envelope":1,"k":1}`: true,
		`{"x":{"$envelope":1},"k":1}`: true, // the receiver looks closer
	} {
		e := begin(t, 0, text)
		for key, m := range e.members {
			if key != "k" {
				e.Property(m)
			}
		}
		if e.EnvelopeTaken() {
			t.Errorf("%s: taken, but there is no envelope", text)
		}
		if e.Keep(e.members["k"]); e.EnvelopeTaken() != want {
			t.Errorf("%s: got %v, want %v", text, !want, want)
		}
	}
	for key, want := range map[string]bool{"file": false, document.EnvelopeKey: true} {
		e := begin(t, 0, `{"k":1}`)
		e.Blob([]byte(key), bytesBlob("x"), nil)
		if e.Keep(e.members["k"]); e.EnvelopeTaken() != want {
			t.Errorf("a file %q: got %v, want %v", key, !want, want)
		}
	}
}

// A rule may name the whole envelope or its parts.
func TestRedactEnvelope(t *testing.T) {
	for _, c := range []struct {
		rule document.Rule
		want string
	}{
		{document.Rule{Path: "properties.$envelope"}, `{"a":1}`},
		{document.Rule{Path: "properties.$envelope.b"}, `{"a":1,"$envelope":{"c":"x"}}`},
		{document.Rule{Path: "properties.$envelope.c", Hash: true},
			`{"a":1,"$envelope":{"b":2,"c":"` + receivertest.Hashed("x") + `"}}`},
		{document.Rule{Path: "properties.$envelope", Hash: true},
			`{"a":1,"$envelope":"` + receivertest.Hashed(`{"b":2,"c":"x"}`) + `"}`},
	} {
		rules, err := document.NewRedaction([]document.Rule{c.rule}, receivertest.Salt)
		if err != nil {
			t.Fatal(err)
		}
		e := begin(t, 0, `{"a":1,"b":2,"c":"x"}`)
		e.Property(e.members["a"])
		e.Keep(e.members["b"])
		e.Keep(e.members["c"])
		row, _, _ := e.Row(rules)
		if string(row) != c.want || len(e.Applied) != 1 {
			t.Errorf("%+v: got %s, applied %v, want %s", c.rule, row, e.Applied, c.want)
		}
	}
}

// A file is dropped, or its bytes are hashed in its place.
func TestRedactBlob(t *testing.T) {
	rules, err := document.NewRedaction([]document.Rule{{Path: "properties.gone"}, {Path: "properties.voice", Hash: true},
		{Path: "properties.a.b"}}, receivertest.Salt)
	if err != nil {
		t.Fatal(err)
	}
	e := begin(t, 0, `{"a":{"b":1,"c":2}}`)
	for _, key := range []string{"gone", "voice", "a", "log"} {
		e.Blob([]byte(key), bytesBlob("of "+key), nil)
	}
	e.Property(e.members["a"])
	row, _, _ := e.Row(rules)
	want := `{"voice":"` + receivertest.Hashed("of voice") + `","a":null,"log":null,"a":{"c":2}}`
	if diff := cmp.Diff(want, string(row)); diff != "" || len(e.Blobs) != 2 || len(e.Applied) != 3 {
		t.Errorf("%d blobs, %d rules applied, row (-want +got):\n%s", len(e.Blobs), len(e.Applied), diff)
	}
}

func TestWrongRules(t *testing.T) {
	for path, says := range map[string]string{
		"properties": "properties.KEY", "context": "context.KEY", "user_id.x": "below user_id",
		"session_id.a.b": "below session_id", "name": "want properties", "": "want properties", "propertie.x": "want properties",
		"properties.twice": "twice",
	} {
		_, err := document.NewRedaction([]document.Rule{{Path: "properties.twice"}, {Path: path, Hash: true}}, "")
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), `"`+path+`"`) {
			t.Errorf("%q: got %v, want an error that says %q", path, err, says)
		}
	}
	if r, err := document.NewRedaction(nil, ""); r != nil || err != nil {
		t.Errorf("without rules: got %v, %v", r, err)
	}
	// One rule may be above another.
	if _, err := document.NewRedaction([]document.Rule{{Path: "properties.a.b"}, {Path: "properties.a"}}, ""); err != nil {
		t.Error(err)
	}
}

// A message shows a path only down to a rule, because keys below are as secret as values.
func TestKnown(t *testing.T) {
	rules, err := document.NewRedaction([]document.Rule{{Path: "properties.users.email"}, {Path: "properties.a.b"},
		{Path: "context.ip"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]string{
		"": "", "other/x/y": "other/x/y", "users": "users", "users/3/email": "users/3/email",
		"users/3/email/ann@x": "users/3/email", "users/email/0/1": "users/email", "users/name/x": "users/name/x",
		"a.b/secret": "a.b", "a/b.c/secret": "a/b.c", "ip/x": "ip/x",
	} {
		var parts []string
		if place != "" {
			parts = strings.Split(place, "/")
		}
		if got := strings.Join(rules.Known(parts), "/"); got != want {
			t.Errorf("%s: got %s, want %s", place, got, want)
		}
	}
	var none *document.Redaction
	if got := none.Known([]string{"a", "b"}); len(got) != 2 {
		t.Errorf("without rules: got %q", got)
	}
}

// Data are decoded only if an encoder makes the same text of them again.
func FuzzDecodeBase64(f *testing.F) {
	for _, s := range []string{"", "QUJD", "QUI=", "QQ==", "QQ=", "QR==", "QUJD\nQUJD", "Q", "====", "QUI=QUJD", "QU-_"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		var got bytes.Buffer
		err := document.DecodeBase64(&got, sent)
		if again := base64.StdEncoding.EncodeToString(got.Bytes()); err == nil && again != string(sent) {
			t.Fatalf("%q was decoded to %q, which is %q", sent, got.Bytes(), again)
		}
		want, wantErr := base64.StdEncoding.Strict().DecodeString(string(sent))
		if strict := wantErr == nil && !bytes.ContainsAny(sent, "\r\n"); strict != (err == nil) {
			t.Fatalf("%q: error %v, want one: %v", sent, err, !strict)
		} else if strict && !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("%q: got %q, want %q", sent, got.Bytes(), want)
		}
	})
}

// full is a writer that fails.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// A blob that cannot be written is an error, whatever its kind.
func TestBlobsThatCannotBeWritten(t *testing.T) {
	value := strings.Repeat("QUJD", 50)
	for _, text := range []string{`"` + value + `"`, `"\n` + value + `"`, `"data:image/png;base64,` + value + `"`,
		`["` + value + `"]`} {
		e := begin(t, 100, `{"a":`+text+`}`)
		e.Property(e.members["a"])
		e.Row(nil)
		if len(e.Blobs) != 1 {
			t.Fatalf("%s: %d blobs", text, len(e.Blobs))
		}
		if err := e.Blobs[0].Write(full{}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%.30s: got error %v", text, err)
		}
	}
}
