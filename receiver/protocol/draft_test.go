package protocol

import (
	"errors"
	"testing"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

func TestDraftColumns(t *testing.T) {
	for _, c := range []struct {
		value, want string
		code        errcode.Code
	}{
		{`"a"`, "a", 0}, {`"\u0041"`, "A", 0}, {`17`, "17", 0}, {`null`, "", 0}, {`true`, "", errcode.WrongType},
		{`{}`, "", errcode.WrongType},
		{`"12345"`, "", errcode.FieldTooLong},
	} {
		var d Draft
		d.Reset(nil)
		got := d.Text(AsMember("m", []byte(c.value)), 4)
		var e *errcode.Error
		code := errcode.None
		if errors.As(d.Err, &e) {
			code = e.Code
		}
		if string(got) != c.want || code != c.code {
			t.Errorf("%s: got %q and code %d, want %q and %d", c.value, got, code, c.want, c.code)
		}
	}
}

// The first error counts.
func TestDraftFails(t *testing.T) {
	var d Draft
	d.Reset(nil)
	d.SetTime(AsMember("time", []byte(`"soon"`)))
	d.Text(AsMember("name", []byte(`[]`)), 9)
	if code, _ := errcode.Of(d.Err); code != errcode.InvalidTimestamp {
		t.Errorf("code %s, want %s", code, errcode.InvalidTimestamp)
	}
}

func TestDraftID(t *testing.T) {
	const uuid = "0193b3f0-7b5a-7cde-8f01-23456789abcd"
	for _, c := range []struct {
		id             string
		isUUID, given  bool
		envelopeKeepsX bool
	}{{"", false, false, true}, {"id-7", false, true, true}, {uuid, true, true, false}} {
		var d Draft
		d.Reset(nil)
		d.SetID([]byte(c.id))
		d.KeepID(AsMember("id", []byte(`"x"`)))
		id, given := d.UUID([]byte("game"))
		if d.HasUUID() != c.isUUID || given != c.given || (len(d.Envelope) == 1) != c.envelopeKeepsX {
			t.Errorf("%q: UUID %v, given %v, %d kept; want %+v", c.id, d.HasUUID(), given, len(d.Envelope), c)
		}
		if c.isUUID && id.String() != uuid || c.given && !c.isUUID && id != pipeline.UUIDv5([]byte("game"), []byte(c.id)) {
			t.Errorf("%q: got %s", c.id, id)
		}
	}
}

func TestDraftParts(t *testing.T) {
	var d Draft
	for range 2 { // the second time it is reused
		d.Reset(nil)
		d.Property(AsMember("a", []byte(`1`)))
		d.Spread(AsMember("b", []byte(`{"x":1}`)))
		d.Spread(AsMember("c", []byte(`[1]`)))
		d.Spread(AsMember("d", nil))
		d.Keep(AsMember("e", []byte(`null`)))
		d.Keep(&jsonscan.Member{Key: []byte("f"), Value: []byte(`2`), Kind: jsonscan.Number})
	}
	if len(d.Parts) != 3 || d.Parts[0].As != Member || d.Parts[1].As != Members || string(d.Parts[2].Of.Key) != "c" ||
		len(d.Envelope) != 1 {
		t.Errorf("parts %+v, envelope %+v", d.Parts, d.Envelope)
	}
}

func TestJoined(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range [][2]string{{"a", "b"}, {"ab", ""}, {"", "ab"}, {"a ", "b"}, {"a", " b"}, {"1 a", ""}, {"", "1 a"}} {
		if joined := string(Joined([]byte(c[0]), []byte(c[1]))); seen[joined] {
			t.Errorf("%q: %q is made twice", c, joined)
		} else {
			seen[joined] = true
		}
	}
}
