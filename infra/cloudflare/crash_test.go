package cloudflare

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/edge"
)

// A shard may be killed after it stored an object and before it deleted the rows. The test restores the storage from
// before: the object must stay the only one.
func TestStoredOnce(t *testing.T) {
	t.Parallel()
	project := edge.Copy(t)
	project.Build(t)
	persist, before := t.TempDir(), t.TempDir()
	start := func() *edge.Edge {
		return project.Start(t, edge.Options{Persist: persist, Bindings: map[string]string{
			"PROJECTS": projectsFile(t), "SHARDS": "1", "ROLL_AGE": "4"}})
	}
	restore := func() {
		t.Helper()
		storage := filepath.Join(persist, "do")
		err := os.RemoveAll(storage)
		if err == nil {
			err = os.CopyFS(storage, os.DirFS(before))
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	e := start()
	x := exchange{"POST", "/v1/events", bearer(largeKey)}
	for i := range 3 {
		if status, _, answer := x.send(t, e.URL, fmt.Sprintf(`{"name":"e%d","event_id":"%[1]d"}`, i)); status != 202 {
			t.Fatalf("got %d %v", status, answer)
		}
	}
	e.Kill()
	if err := os.CopyFS(before, os.DirFS(filepath.Join(persist, "do"))); err != nil {
		t.Fatal(err)
	}

	e = start()
	first := awaitObjects(t, e, 1)
	e.Kill()
	restore()
	e = start()
	awaitStored(t, e)
	if again := awaitObjects(t, e, 1); !slices.EqualFunc(first, again, sameObject) {
		t.Errorf("the objects were %+v, and are %+v", first, again)
	}
	if all := readObject(t, e, first[0]); len(all) != 3 {
		t.Errorf("%d events, want 3", len(all))
	}

	// Another program's object has the key: it stays, and the batch gets another key.
	if err := e.Put(t.Context(), first[0].Key, "not ours"); err != nil {
		t.Fatal(err)
	}
	e.Kill()
	restore()
	e = start()
	both := awaitObjects(t, e, 2)
	awaitStored(t, e)
	if data, err := e.Get(t.Context(), first[0].Key); err != nil || string(data) != "not ours" {
		t.Errorf("the other object is now %q, %v", data, err)
	}
	for _, o := range both {
		if o.Key != first[0].Key {
			if all := readObject(t, e, o); len(all) != 3 {
				t.Errorf("%d events, want 3", len(all))
			}
		}
	}
}

func sameObject(a, b edge.Object) bool { return a.Key == b.Key && a.ETag == b.ETag }

// awaitObjects waits for a number of objects.
func awaitObjects(t *testing.T, e *edge.Edge, want int) (objects []edge.Object) {
	t.Helper()
	await(t, "objects", func() (err error) {
		if objects, err = e.Objects(t.Context()); err == nil && len(objects) != want {
			err = fmt.Errorf("%d, want %d", len(objects), want)
		}
		return err
	})
	return objects
}

// awaitStored waits until a shard has deleted the rows of an object.
func awaitStored(t *testing.T, e *edge.Edge) {
	t.Helper()
	await(t, "rows deleted", func() error {
		if log := e.Log(); !strings.Contains(log, `"message":"object stored"`) {
			return fmt.Errorf("the log is %q", log)
		}
		return nil
	})
}

func await(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
