package clickhouse

import (
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/internal/pipeline"
)

// A failure's fields have plain names and types, whether they have values or not.
func TestErrorsColumns(t *testing.T) {
	db, _, _ := open(t)
	for i, properties := range []string{
		`{"stage":"receiver","message":"m","request_id":"r","method":"POST","path":"/v1/events","content_type":"text/plain","content_encoding":"gzip","index":7,"raw":"text"}`,
		`{"stage":"receiver","message":"m","raw_base64":"` + base64.StdEncoding.EncodeToString([]byte("\x00\xff")) + `"}`,
		`{"stage":"receiver","message":"m","index":0,"raw_object":"blobs/errors/x","raw_bytes":2000000,"raw_sha256":"abc"}`,
		`{"stage":"loader","message":"m","source_object":"events/o","source_row":0,"attempt":2,"server_code":27,"class":"permanent","loader":"l1"}`,
		`{"stage":"loader","message":"m","source_object":"events/o","attempt":1,"server_code":0,"class":"unknown"}`,
		`{"stage":"receiver","message":"m","raw_bytes":2000000,"raw_blob":{"$blob":{"object":"blobs/errors/y.blobs","range":[5,2000004],"bytes":2000000,"sha256":"abc"}}}`,
	} {
		e := event(i, properties)
		e.Name = []byte("the_code")
		if i == 0 {
			e.Context = []byte(`{"ip":"1.2.3.4","user_agent":"sdk/1"}`)
		} else {
			e.Context = []byte(`{}`)
		}
		// A repeated failure is one row with FINAL.
		for try := range 2 {
			if err := insertEvents(t.Context(), db, "errors", fmt.Sprint(i, try), "errors/o", 0,
				[]pipeline.Event{e}); err != nil {
				t.Fatal(err)
			}
		}
	}
	const columns = "request_id, method, path, content_type, content_encoding, `index`, client_ip, user_agent, " +
		"source_object, source_row, attempt, server_code, class, raw, raw_object, raw_sha256, raw_bytes, raw_range"
	for i, want := range []string{
		`('r','POST','/v1/events','text/plain','gzip',7,'1.2.3.4','sdk/1','',NULL,0,0,'','text','','',4,[])`,
		`('','','','','',NULL,'','','',NULL,0,0,'','\0` + "\xff" + `','','',2,[])`,
		`('','','','','',0,'','','',NULL,0,0,'','','blobs/errors/x','abc',2000000,[])`,
		`('','','','','',NULL,'','','events/o',0,2,27,'permanent','','','',0,[])`,
		`('','','','','',NULL,'','','events/o',NULL,1,0,'unknown','','','',0,[])`,
		`('','','','','',NULL,'','','',NULL,0,0,'','','blobs/errors/y.blobs','abc',2000000,[5,2000004])`,
	} {
		got := query[string](t, db, fmt.Sprintf(
			"SELECT toString((%s)) FROM errors FINAL WHERE seq = %d AND code = 'the_code' AND object = 'errors/o'", columns, i))
		if got != want {
			t.Errorf("row %d: got %q, want %q", i, got, want)
		}
	}
	got := query[string](t, db,
		"SELECT toString(groupArray((toUnixTimestamp64Milli(time), object, object_row, attempt, class, code, server_code, "+
			"message, loader, event_id))) FROM (SELECT * FROM load_failures ORDER BY attempt)")
	want := fmt.Sprintf(
		"[(%[1]d,'events/o',NULL,1,'unknown','the_code',0,'m','','%[2]s'),(%[1]d,'events/o',0,2,'permanent','the_code',27,'m','l1','%[3]s')]",
		noon, event(4, "").ID, event(3, "").ID)
	if got != want {
		t.Errorf("load_failures: got %s, want %s", got, want)
	}
}

// Each field of a filter excludes what it does not match.
func TestErrorFilter(t *testing.T) {
	db, _, _ := open(t)
	var ids []pipeline.UUID
	for i, f := range []struct{ code, project, properties string }{
		{"invalid_json", "a", `{"stage":"receiver","message":"unexpected end","request_id":"r","raw":"{"}`},
		{"too_large", "b", `{"stage":"receiver","message":"too large","raw_bytes":5,"raw_object":"o","raw_sha256":"s"}`},
		{"permanent", "", `{"stage":"loader","message":"no such type","source_object":"events/x"}`},
	} {
		e := event(i, f.properties)
		e.Name, e.Project, e.ReceivedAt = []byte(f.code), []byte(f.project), noon+int64(i)*1000
		if err := insertEvents(t.Context(), db, "errors", f.code, "errors/o", 0, []pipeline.Event{e}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if err := db.MarkRedriven(t.Context(), []Redriven{{ID: ids[1], Accepted: 1, RequestID: "q", Object: "o"}}); err != nil {
		t.Fatal(err)
	}
	second := time.UnixMilli(noon + 1000)
	for _, tt := range []struct {
		name   string
		filter ErrorFilter
		want   []string
	}{
		{"all, the newest first", ErrorFilter{}, []string{"permanent", "too_large", "invalid_json"}},
		{"the oldest first", ErrorFilter{Oldest: true}, []string{"invalid_json", "too_large", "permanent"}},
		{"limit", ErrorFilter{Limit: 2}, []string{"permanent", "too_large"}},
		{"ids", ErrorFilter{IDs: ids[:2]}, []string{"too_large", "invalid_json"}},
		{"from", ErrorFilter{From: second}, []string{"permanent", "too_large"}},
		{"to", ErrorFilter{To: second}, []string{"invalid_json"}},
		{"code", ErrorFilter{Code: "too_large"}, []string{"too_large"}},
		{"project", ErrorFilter{Project: "a"}, []string{"invalid_json"}},
		{"stage", ErrorFilter{Stage: "loader"}, []string{"permanent"}},
		{"source", ErrorFilter{Source: "events/x"}, []string{"permanent"}},
		{"text", ErrorFilter{Text: "large"}, []string{"too_large"}},
		{"pending", ErrorFilter{Pending: true}, []string{"permanent", "invalid_json"}},
		{"several", ErrorFilter{Stage: "receiver", Pending: true, Code: "too_large"}, nil},
	} {
		var got []string
		if err := db.Errors(t.Context(), tt.filter, func(k Kept) error {
			got = append(got, k.Code)
			if k.Raw != "" || k.Properties != "" || (k.Redriven != nil) != (k.Code == "too_large") {
				t.Errorf("%s: %+v", tt.name, k)
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
	}

	var got Kept
	if err := db.Errors(t.Context(), ErrorFilter{IDs: ids[:1], Whole: true}, func(k Kept) error {
		got = k
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := Kept{ID: ids[0].String(), Time: time.UnixMilli(noon).UTC(), Stage: "receiver", Code: "invalid_json",
		Message: "unexpected end", Project: "a", RawBytes: 1, Object: "errors/o", Raw: "{", Context: `{"ip":"1.2.3.4"}`,
		Properties: `{"message":"unexpected end","raw":"{","raw_base64":"","request_id":"r","stage":"receiver"}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("whole: -want +got\n%s", diff)
	}
	stop := errors.New("enough")
	if err := db.Errors(t.Context(), ErrorFilter{}, func(Kept) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error: got %v", err)
	}
}

// Failures are counted by the release in their raw payloads, even if these are not JSON.
func TestCountErrors(t *testing.T) {
	db, _, _ := open(t)
	var all []pipeline.Event
	for i, raw := range []string{`{\"app_version\": \"2.4.0\",`, `{\"app_version\":\"2.4.0\"}`, `{\"release\":\"2.3\"}`, `{}`} {
		e := event(i, `{"stage":"receiver","message":"m","raw":"`+raw+`"}`)
		e.Name, e.Context, e.ReceivedAt = []byte("bad"), []byte(`{}`), time.Now().UnixMilli()
		all = append(all, e)
	}
	if err := insertEvents(t.Context(), db, "errors", "counts", "errors/o", 0, all); err != nil {
		t.Fatal(err)
	}
	if err := db.MarkRedriven(t.Context(), []Redriven{{ID: all[0].ID}}); err != nil {
		t.Fatal(err)
	}
	count := func(f ErrorFilter) (got []string) {
		if err := db.CountErrors(t.Context(), f, func(c ErrorCount) error {
			got = append(got, fmt.Sprint(c.Code, " ", c.Release, " ", c.Count, " ", c.Pending, " ", c.Example))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if diff := cmp.Diff([]string{"bad 2.4.0 2 1 m", "bad  1 1 m", "bad 2.3 1 1 m"}, count(ErrorFilter{Code: "bad"})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"bad 2.4.0 1 1 m"}, count(ErrorFilter{Release: "2.4.0", Pending: true})); diff != "" {
		t.Errorf("of a release (-want +got):\n%s", diff)
	}
}
