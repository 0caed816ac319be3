// Package edge runs the Worker of infra/cloudflare in workerd, the runtime of Cloudflare's servers. miniflare replaces
// its surroundings: the bucket, the key-value namespace and the storage of Durable Objects. The first test on a machine
// waits while npm fetches them.
package edge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/npm"
	"github.com/penstock/penstock/internal/testing/servers"
)

// Project is a copy of infra/cloudflare with its packages.
type Project struct{ Dir string }

// Copy copies infra/cloudflare into a folder that is removed afterwards.
func Copy(t testing.TB) Project {
	t.Helper()
	servers.Needed(t)
	_, file, _, _ := runtime.Caller(0)
	source := filepath.Join(filepath.Dir(file), "../../../infra/cloudflare")
	p := Project{t.TempDir()}
	for _, name := range []string{"src", "test", "scripts"} {
		if err := os.CopyFS(filepath.Join(p.Dir, name), os.DirFS(filepath.Join(source, name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"package.json", "tsconfig.json", "wrangler.jsonc"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.Dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	installed := filepath.Join(npm.Install(t, filepath.Join(p.Dir, "package.json")), "node_modules")
	if err := os.Symlink(installed, filepath.Join(p.Dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return p
}

// Run runs a program of the packages or npm, and returns what it printed.
func (p Project) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	if name != "npm" && name != "node" {
		name = filepath.Join(p.Dir, "node_modules", ".bin", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = p.Dir
	cmd.Env = append(os.Environ(), "WRANGLER_SEND_METRICS=false", "CI=1", "HOME="+p.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Build bundles the Worker.
func (p Project) Build(t testing.TB) {
	t.Helper()
	p.Run(t, "npm", "run", "--silent", "build")
}

// Options are those of an edge.
type Options struct {
	Persist  string            // folder of the bucket and the storage
	Address  string            // 127.0.0.1:PORT; empty: a free one
	Bindings map[string]string // variables and secrets of the Worker
}

// Edge is the Worker in workerd.
type Edge struct {
	URL     string
	control string
	t       testing.TB
	cmd     *exec.Cmd
	input   io.Closer
	log     lockedBuffer
	ended   chan struct{}
}

// Start runs the Worker, and ends it with the test.
func (p Project) Start(t testing.TB, o Options) *Edge {
	t.Helper()
	port := "0"
	if o.Address != "" {
		port = o.Address[strings.LastIndexByte(o.Address, ':')+1:]
	}
	// A module is named below the folder where the program runs.
	options, err := json.Marshal(map[string]any{"worker": "dist/worker.js", "port": json.Number(port),
		"persist": o.Persist, "bindings": o.Bindings})
	if err != nil {
		t.Fatal(err)
	}
	e := &Edge{t: t, ended: make(chan struct{})}
	e.cmd = exec.Command("node", "test/edge.mjs", string(options)) // #nosec G204 -- of the repository
	e.cmd.Dir = p.Dir
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	e.cmd.Stderr = &e.log
	out, err := e.cmd.StdoutPipe()
	if err == nil {
		e.input, err = e.cmd.StdinPipe() // it ends with us, even if we are killed
	}
	if err == nil {
		err = e.cmd.Start()
	}
	if err != nil {
		t.Fatalf("start the edge: %v", err)
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	go func() {
		io.Copy(io.Discard, lines)
		e.cmd.Wait()
		close(e.ended)
	}()
	t.Cleanup(e.Kill)
	var said struct{ URL, Control string }
	if err != nil || json.Unmarshal([]byte(line), &said) != nil {
		e.Kill()
		t.Fatalf("the edge did not start: %v\n%s%s", err, line, e.Log())
	}
	e.URL, e.control = said.URL, said.Control
	return e
}

// Kill kills the Worker's process and workerd, in whatever they do.
func (e *Edge) Kill() {
	if e.Ended() {
		return
	}
	syscall.Kill(-e.cmd.Process.Pid, syscall.SIGKILL)
	<-e.ended
	if e.t.Failed() {
		text := e.log.String()
		e.t.Logf("the edge's log ends:\n%s", text[max(0, len(text)-4000):])
	}
}

// Ended reports whether the runtime has ended without Kill.
func (e *Edge) Ended() bool {
	select {
	case <-e.ended:
		return true
	default:
		return false
	}
}

// Log is what the Worker has logged.
func (e *Edge) Log() string { return e.log.String() }

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Object is one in the Worker's bucket.
type Object struct {
	Key, ETag      string
	Size           int64
	CustomMetadata map[string]string
}

// Objects lists the bucket.
func (e *Edge) Objects(ctx context.Context) (objects []Object, err error) {
	text, err := e.get(ctx, http.MethodGet, "/objects", nil)
	if err != nil {
		return nil, err
	}
	return objects, json.Unmarshal(text, &objects)
}

// Get reads an object.
func (e *Edge) Get(ctx context.Context, key string) ([]byte, error) {
	return e.get(ctx, http.MethodGet, "/object?key="+url.QueryEscape(key), nil)
}

// Put overwrites an object, without metadata.
func (e *Edge) Put(ctx context.Context, key, data string) error {
	_, err := e.get(ctx, http.MethodPut, "/object?key="+url.QueryEscape(key), strings.NewReader(data))
	return err
}

// PutKey writes an entry of the namespace with the keys.
func (e *Edge) PutKey(ctx context.Context, name, value string) error {
	_, err := e.get(ctx, http.MethodPut, "/key?name="+url.QueryEscape(name), strings.NewReader(value))
	return err
}

func (e *Edge) get(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, e.control+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, text)
	}
	return text, err
}
