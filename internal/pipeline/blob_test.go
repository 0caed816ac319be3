package pipeline

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// References stay in rows forever: their form must never change.
func TestBlobRef(t *testing.T) {
	ref := BlobRef{Object: "blobs/events/x.blobs", Range: [2]int64{10, 19}, Bytes: 10, SHA256: "ab", Kind: BlobFile,
		ContentType: "image/png", Name: "a \"quoted\" <name>"}
	got := string(ref.Append([]byte(`{"image":`)))
	want := `{"image":{"$blob":{"object":"blobs/events/x.blobs","range":[10,19],"bytes":10,"sha256":"ab",` +
		`"content_type":"image/png","kind":"file","name":"a \"quoted\" \u003cname\u003e"}}`
	if got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	var back struct {
		Image map[string]BlobRef `json:"image"`
	}
	if err := json.Unmarshal([]byte(got+"}"), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ref, back.Image[BlobKeyName]); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	ref.Name = ""
	if got := string(ref.Append(nil)); strings.Contains(got, "name") {
		t.Errorf("a blob without a name: %s", got)
	}
}

// A batch's blobs are found by its key, and are no data to load.
func TestBlobKey(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 45, 12, 345e6, time.UTC)
	for _, tt := range []struct {
		key  Key
		want string
	}{
		{Key{"events/", at, "game-1", 17, Parquet},
			"blobs/events/dt=2026-11-22/hr=03/20261122T034512.345Z-game-1-17.blobs"},
		{Key{"errors/", at, "r", 0, NDJSON}, "blobs/errors/dt=2026-11-22/hr=03/20261122T034512.345Z-r-0.blobs"},
	} {
		got := BlobKey(tt.key)
		if got != tt.want || !IsBlobKey(got) {
			t.Errorf("%s: got %s, %v, want %s", tt.key, got, IsBlobKey(got), tt.want)
		}
		if _, err := SpecOf(got); err == nil {
			t.Errorf("%s is of a pipeline", got)
		}
		if IsBlobKey(tt.key.String()) {
			t.Errorf("%s is a key of blobs", tt.key)
		}
	}
	for _, key := range []string{"", "blobs/", "blobs/x", "x.blobs", "events/blobs/x.blobs"} {
		if IsBlobKey(key) {
			t.Errorf("%q is a key of blobs", key)
		}
	}
}
