package clickhouse

import (
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
)

// A failure's fields have plain names, of plain types, whether they are there or not.
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
		// The same failure twice is one row with FINAL.
		for try := range 2 {
			if err := insertEvents(t.Context(), db, "errors", fmt.Sprint(i, try), "errors/o", 0, []pipeline.Event{e}); err != nil {
				t.Fatal(err)
			}
		}
	}
	const columns = "request_id, method, path, content_type, content_encoding, `index`, client_ip, user_agent, source_object, source_row, attempt, server_code, class, raw, raw_object, raw_sha256, raw_bytes, raw_range"
	for i, want := range []string{
		`('r','POST','/v1/events','text/plain','gzip',7,'1.2.3.4','sdk/1','',NULL,0,0,'','text','','',4,[])`,
		`('','','','','',NULL,'','','',NULL,0,0,'','\0` + "\xff" + `','','',2,[])`,
		`('','','','','',0,'','','',NULL,0,0,'','','blobs/errors/x','abc',2000000,[])`,
		`('','','','','',NULL,'','','events/o',0,2,27,'permanent','','','',0,[])`,
		`('','','','','',NULL,'','','events/o',NULL,1,0,'unknown','','','',0,[])`,
		`('','','','','',NULL,'','','',NULL,0,0,'','','blobs/errors/y.blobs','abc',2000000,[5,2000004])`,
	} {
		got := query[string](t, db, fmt.Sprintf("SELECT toString((%s)) FROM errors FINAL WHERE seq = %d AND code = 'the_code' AND object = 'errors/o'", columns, i))
		if got != want {
			t.Errorf("row %d: got %q, want %q", i, got, want)
		}
	}
	got := query[string](t, db, "SELECT toString(groupArray((toUnixTimestamp64Milli(time), object, object_row, attempt, class, code, server_code, message, loader, event_id))) FROM (SELECT * FROM load_failures ORDER BY attempt)")
	want := fmt.Sprintf("[(%[1]d,'events/o',NULL,1,'unknown','the_code',0,'m','','%[2]s'),(%[1]d,'events/o',0,2,'permanent','the_code',27,'m','l1','%[3]s')]",
		noon, event(4, "").ID, event(3, "").ID)
	if got != want {
		t.Errorf("load_failures: got %s, want %s", got, want)
	}
}
