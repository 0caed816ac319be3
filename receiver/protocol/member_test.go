package protocol_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Members of a broken object are returned as far as they can be found, and the object is reported as broken.
func TestMembersOfBrokenObjects(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "whole", `{ }`: "whole", `{"a":1}`: "a=1 whole", `{"a":[{"b":"}"}],"c":{}}`: `a=[{"b":"}"}] c={} whole`,
		`{"\u0061\"":"\u0062"}`: `a"="\u0062" whole`, `{"a":1,"a":2}`: "a=1 a=2 whole", `{"":""}`: `="" whole`,
		``: "", `{`: "", `[]`: "", `"a"`: "", `7`: "", `{a:1}`: "", `{"a"}`: "", `{"a" 1}`: "", `{"a":}`: "", `{"a`: "",
		`{"a":1`: "a=1", `{"a":1,}`: "a=1", `{"a":1 "b":2}`: "a=1", `{"a":1}x`: "a=1", `{}x`: "", `{"a":1,"b":[}`: "a=1 b=[}", // by brackets
	} {
		var got []string
		if protocol.EachMember([]byte(text), func(key, value []byte) {
			got = append(got, string(key)+"="+string(value))
		}) {
			got = append(got, "whole")
		}
		if all := strings.Join(got, " "); all != want {
			t.Errorf("%s: got %q, want %q", text, all, want)
		}
	}
}

// A value's first byte decides its kind. Values other than text and numbers have no text.
func TestKindsOfValues(t *testing.T) {
	for value, c := range map[string]struct {
		kind jsonscan.Kind
		text string
	}{
		``: {jsonscan.Null, ""}, `null`: {jsonscan.Null, ""}, `"a"`: {jsonscan.String, "a"}, `""`: {jsonscan.String, ""},
		`"\u00e9\n"`: {jsonscan.String, "é\n"}, `-1.50`: {jsonscan.Number, "-1.50"}, `true`: {jsonscan.Bool, ""},
		`false`: {jsonscan.Bool, ""}, `[1]`: {jsonscan.Array, ""}, `{"a":1}`: {jsonscan.Object, ""},
	} {
		m := protocol.AsMember("m", []byte(value))
		if got := string(protocol.PlainText([]byte(value))); m.Kind != c.kind || got != c.text || string(m.Key) != "m" {
			t.Errorf("%s: got %s and %q, want %s and %q", value, m.Kind, got, c.kind, c.text)
		}
	}
}

// A missing time is no error: the receiver uses the time of arrival. An error about a wrong time quotes it.
func TestTimes(t *testing.T) {
	for value, c := range map[string]struct {
		want int64
		code errcode.Code
		says string
	}{
		`null`: {want: pipeline.NoTime}, `""`: {want: pipeline.NoTime}, `"2026-11-24T10:00:00.123Z"`: {want: 1795514400123},
		`1795514400.123`: {want: 1795514400123}, `"\u0031795514400"`: {want: 1795514400000},
		`true`:                               {code: errcode.WrongType, says: `"at" is of type bool`},
		`{}`:                                 {code: errcode.WrongType, says: `"at" is of type object`},
		`"so\u006fn"`:                        {code: errcode.InvalidTimestamp, says: `"at" is "soon"`},
		`1e99`:                               {code: errcode.InvalidTimestamp, says: `"at" is "1e99"`},
		`"` + strings.Repeat("9", 500) + `"`: {code: errcode.InvalidTimestamp, says: strings.Repeat("9", 40) + `"`},
	} {
		var d protocol.Draft
		d.Reset(nil)
		if d.Time != pipeline.NoTime {
			t.Errorf("without a member: time %d", d.Time)
		}
		d.SetTime(protocol.AsMember("at", []byte(value)))
		var e *errcode.Error
		switch failed := errors.As(d.Err, &e); {
		case failed && (e.Code != c.code || !strings.Contains(e.Message, c.says)):
			t.Errorf("%.50s: got %s, %q, want %s with %q", value, e.Code, e.Message, c.code, c.says)
		case !failed && (c.code != errcode.None || d.Time != c.want):
			t.Errorf("%.50s: got %d, want %d, %s", value, d.Time, c.want, c.code)
		}
	}
}

// The kept part of a header is short and valid UTF-8, wherever it was cut.
func TestClip(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a": "a", "a\xffb": "a\uFFFDb", strings.Repeat("é", protocol.MaxHeader): strings.Repeat("é", protocol.MaxHeader/2),
		"a" + strings.Repeat("é", protocol.MaxHeader): "a" + strings.Repeat("é", protocol.MaxHeader/2-1) + "\uFFFD",
	} {
		if got := protocol.Clip(text); got != want {
			t.Errorf("%.10q of %d bytes: got %d bytes, %q at the end", text, len(text), len(got), got[max(0, len(got)-5):])
		}
	}
}
