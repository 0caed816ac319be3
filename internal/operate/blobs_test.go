package operate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
)

const blobObject = "blobs/events/dt=2026-11-22/hr=03/20261122T034512.345Z-r1-17.blobs"

// blobStore returns a bucket with one object of blobs. It counts the requested bytes.
func blobStore(t testing.TB, content []byte) *objstore.Bucket {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasSuffix(req.URL.Path, blobObject) {
			http.Error(w, "<Error><Code>NoSuchKey</Code></Error>", http.StatusNotFound)
			return
		}
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	return objstore.Open(objstore.Options{Endpoint: server.URL, Region: "us-east-1", Bucket: "b", AccessKey: "a",
		SecretKey: "s", PathStyle: true})
}

func blobRef(data []byte, first int) pipeline.BlobRef {
	sum := sha256.Sum256(data)
	return pipeline.BlobRef{Object: blobObject, Range: [2]int64{int64(first), int64(first + len(data) - 1)},
		Bytes:  int64(len(data)),
		SHA256: hex.EncodeToString(sum[:]), Kind: pipeline.BlobText}
}

// A client may guess the place of another project's blob. Without its sum it gets nothing.
func TestBlobOfAnotherSumIsNotRead(t *testing.T) {
	secret := []byte("the value of another project")
	store := blobStore(t, append([]byte("mine,"), secret...))
	genuine := blobRef(secret, len("mine,"))
	if got, err := readBlob(t.Context(), store, genuine, 1000); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("by its true reference: %q, %v", got, err)
	}
	guesses := []pipeline.BlobRef{genuine, genuine, genuine, genuine, genuine}
	guesses[0].SHA256 = strings.Repeat("0", 64)
	guesses[1].SHA256 = ""
	guesses[2].SHA256 = genuine.SHA256[:63]
	guesses[3].SHA256 = hex.EncodeToString(sha256.New().Sum(nil))
	guesses[4].Range[0]++
	guesses[4].Bytes--
	for _, ref := range guesses {
		if got, err := readBlob(t.Context(), store, ref, 1000); err == nil {
			t.Errorf("sum %q: read %q", ref.SHA256, got)
		}
		text, err := json.Marshal(map[string]any{"$blob": ref})
		if err != nil {
			t.Fatal(err)
		}
		r := &resolver{store: store, limit: 1000}
		out, err := r.resolve(t.Context(), "event", fmt.Appendf(nil, `{"v":%s}`, text))
		if err != nil || r.failed != 1 || bytes.Contains(out, secret) {
			t.Errorf("sum %q: resolved to %s, %d failed, %v", ref.SHA256, out, r.failed, err)
		}
	}
}

// FuzzResolve resolves references that a client may have written. The result contains only bytes that the bucket has
// under that sum, within the limit.
func FuzzResolve(f *testing.F) {
	data := []byte(`{"a":[1,"é",null]}` + strings.Repeat("x", 1000))
	store := blobStore(f, data)
	const limit = 4000
	for _, ref := range []pipeline.BlobRef{blobRef(data, 0), blobRef(data[:18], 0),
		{Object: blobObject, Range: [2]int64{-1, 1 << 60}, Bytes: 1<<60 + 2}} {
		for _, kind := range []string{pipeline.BlobText, pipeline.BlobJSON, pipeline.BlobDataURL} {
			ref.Kind = kind
			text, err := json.Marshal(map[string]any{"$blob": ref})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(fmt.Appendf(nil, `{"v":%s,"w":[%s,1]}`, text, text))
		}
	}
	f.Add([]byte(`{"v":{"$blob":{"$blob":{"object":"x"}}}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		r := &resolver{store: store, limit: limit}
		out, err := r.resolve(t.Context(), "event", doc)
		if err != nil {
			t.Fatal(err)
		}
		if most := len(doc) + 6*limit + 100; len(out) > most { // quoting turns a byte into up to six
			t.Errorf("%d bytes became %d, want at most %d", len(doc), len(out), most)
		}
		if json.Valid(doc) && !json.Valid(out) {
			t.Errorf("%q became %q, which is no JSON", doc, out)
		}
	})
}
