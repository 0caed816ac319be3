// Package schemas checks events' properties against JSON Schemas. A folder has one file for each event name and
// version, and is read again when it changes. Nothing is fetched over the network.
package schemas

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Set is the schemas of a folder.
type Set struct {
	dir   string
	log   *slog.Logger
	names atomic.Pointer[map[string]*event] // by event name
	seen  string                            // the folder's state at the last read
	large sync.Mutex                        // held while a large document is checked, because of its memory
}

// event is the schemas of one event name.
type event struct {
	set      *Set
	versions map[int]*version
	newest   int
}

type version struct {
	file   string // file name
	schema *jsonschema.Schema
}

// Open reads the folder. A file that is not a schema is an error.
func Open(dir string, log *slog.Logger) (*Set, error) {
	s := &Set{dir: dir, log: log}
	s.names.Store(&map[string]*event{})
	files, seen, err := s.look()
	if err == nil {
		s.seen = seen
		err = s.read(files)
	}
	if err != nil {
		return nil, fmt.Errorf("schemas.dir %s: %w", dir, err)
	}
	return s, nil
}

// Watch checks the folder periodically and reads it again if it has changed. If a file is invalid, its earlier schema
// stays.
func (s *Set) Watch(ctx context.Context, every time.Duration) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		files, seen, err := s.look()
		if err != nil {
			if !failing {
				s.log.Error("schemas cannot be read; the previous ones stay in use", "dir", s.dir, "error", err)
			}
			failing = true
			continue
		}
		if failing = false; seen == s.seen {
			continue
		}
		s.seen = seen
		if err := s.read(files); err != nil {
			s.log.Error("schemas are invalid; their previous versions stay in use", "dir", s.dir, "error", err)
			continue
		}
		s.log.Info("schemas read", "dir", s.dir, "events", len(*s.names.Load()))
	}
}

// Find returns the schema for events of that name; nil: none.
func (s *Set) Find(name []byte) func(properties []byte) error {
	if e := (*s.names.Load())[string(name)]; e != nil {
		return e.check
	}
	return nil
}

// look lists the files, and the folder's state, which shows changes. It skips hidden files, which include the folders
// of mounted ConfigMaps.
func (s *Set) look() (files []string, seen string, err error) {
	var b strings.Builder
	err = filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != s.dir && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || filepath.Ext(path) != ".json":
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		files = append(files, filepath.ToSlash(name))
		fmt.Fprintf(&b, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		return nil
	})
	return files, b.String(), err
}

// base is the URL of the folder, for references between files.
const base = "file:///schemas/"

// documents are the folder's files by URL, and by $id if they have one.
type documents map[string]any

func (d documents) Load(url string) (any, error) {
	if doc, ok := d[url]; ok {
		return doc, nil
	}
	return nil, fmt.Errorf("%s is not in the folder, and nothing is fetched", url)
}

// read builds the schemas of the files. The error lists everything wrong with any of them.
func (s *Set) read(files []string) error {
	var errs []error
	broken := map[string]bool{}
	fail := func(file string, err error) {
		errs = append(errs, fmt.Errorf("%s: %w", file, err))
		broken[file] = true
	}
	docs := documents{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(s.dir, filepath.FromSlash(file)))
		if err != nil {
			fail(file, err)
			continue
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			fail(file, fmt.Errorf("not JSON: %w", err))
			continue
		}
		docs[address(file)] = doc
		if m, ok := doc.(map[string]any); ok {
			if id, ok := m["$id"].(string); ok {
				docs[strings.TrimSuffix(id, "#")] = doc
			}
		}
	}
	names, was := map[string]*event{}, *s.names.Load()
	for _, file := range files {
		if strings.Contains(file, "/") {
			continue // for references
		}
		name, number, err := nameOf(file)
		if err != nil {
			fail(file, err)
			continue
		}
		v := &version{file: file}
		if !broken[file] {
			compiler := jsonschema.NewCompiler()
			compiler.UseLoader(docs)
			compiler.AssertFormat()
			if v.schema, err = compiler.Compile(address(file)); err != nil {
				fail(file, errors.New(strings.ReplaceAll(err.Error(), base, "")))
			}
		}
		if v.schema == nil { // invalid
			if old := was[name]; old != nil && old.versions[number] != nil {
				v = old.versions[number]
			} else {
				continue
			}
		}
		e := names[name]
		if e == nil {
			e = &event{set: s, versions: map[int]*version{}}
			names[name] = e
		}
		if other := e.versions[number]; other != nil {
			fail(file, fmt.Errorf("it is version %d of %q, as %s is", number, name, other.file))
			continue
		}
		e.versions[number] = v
		e.newest = max(e.newest, number)
	}
	s.names.Store(&names)
	return errors.Join(errs...)
}

func address(file string) string { return base + (&url.URL{Path: file}).EscapedPath() }

var versioned = regexp.MustCompile(`^(.+)\.v([0-9]{1,9})$`)

// nameOf returns the event name and version in a file's name: level.json is version 1, level.v2.json version 2.
// Characters that a file name cannot contain are escaped as in URLs: chat%2Freply.json.
func nameOf(file string) (name string, number int, err error) {
	name, number = strings.TrimSuffix(file, ".json"), 1
	if m := versioned.FindStringSubmatch(name); m != nil {
		name = m[1]
		if number, _ = strconv.Atoi(m[2]); number == 0 {
			return "", 0, errors.New("versions begin with 1")
		}
	}
	if name, err = url.PathUnescape(name); err != nil || name == "" {
		return "", 0, fmt.Errorf("the file's name says no event: want NAME.json or NAME.v2.json, a percent sign as %%25")
	}
	return name, number, nil
}

// The size of a checked document is limited, because each value takes about 100 bytes in memory.
const (
	maxValues  = 1 << 18
	largeBytes = 64 << 10 // beyond this, one document at a time
)

// ours are properties that Penstock adds: an id that is not a UUID, and members that a protocol has no column for.
var ours = []string{"event_id", "$envelope"}

// check checks an event's properties, which are valid JSON. The error says what is wrong and where.
func (e *event) check(properties []byte) error {
	if len(properties) > largeBytes {
		e.set.large.Lock()
		defer e.set.large.Unlock()
		if n := bytes.Count(properties, []byte{','}); n > maxValues {
			return fmt.Errorf("more than %d values cannot be held against a schema", maxValues)
		}
	}
	value := parse(properties)
	members, ok := value.(map[string]any)
	number := e.newest
	if ok {
		for _, name := range ours {
			delete(members, name)
		}
		if said, ok := members["schema_version"]; ok {
			n, err := strconv.Atoi(strings.TrimPrefix(fmt.Sprint(said), "v"))
			if number = n; err != nil || e.versions[n] == nil {
				there := numbers(e.versions)
				return &Violation{
					text:  fmt.Sprintf("/schema_version: there is no schema of version %.20v: there are %s", said, there),
					plain: "/schema_version: there is no schema of that version: there are " + there,
				}
			}
		}
	}
	v := e.versions[number]
	err := v.schema.Validate(value)
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return fmt.Errorf("by %s: %w", v.file, err)
	}
	english := message.NewPrinter(language.English)
	return &Violation{text: "by " + v.file + ": " + told(wrong, func(e *jsonschema.ValidationError) ([]string, string) {
		return e.InstanceLocation, e.ErrorKind.LocalizedString(english)
	}), file: v.file, wrong: wrong}
}

// Violation describes how properties violate their schema. Its text may quote them.
type Violation struct {
	text  string
	plain string // text without quotes, if wrong is nil
	file  string
	wrong *jsonschema.ValidationError
}

func (v *Violation) Error() string { return v.text }

// Plain returns the text with only places and schema keywords. at receives each place as keys, and returns the part
// that may be shown.
func (v *Violation) Plain(at func(place []string) []string) string {
	if v.wrong == nil {
		return v.plain
	}
	return "by " + v.file + ": " + told(v.wrong, func(e *jsonschema.ValidationError) ([]string, string) {
		return at(e.InstanceLocation), cmp.Or(strings.Join(e.ErrorKind.KeywordPath(), "/"), "not allowed")
	})
}

func numbers(versions map[int]*version) string {
	var all []string
	for _, n := range slices.Sorted(maps.Keys(versions)) {
		all = append(all, strconv.Itoa(n))
	}
	return strings.Join(all, ", ")
}

// How many violations are reported, and how much of each, in bytes.
const (
	maxTold = 3
	maxText = 300
)

// root is the place whose JSON pointer is empty.
const root = "the event's properties"

// told returns the first violations: the place as a JSON pointer, and the message, both as say formats them.
func told(err *jsonschema.ValidationError, say func(*jsonschema.ValidationError) (place []string, what string)) string {
	var leaves []*jsonschema.ValidationError
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			leaves = append(leaves, e)
		}
		for _, c := range e.Causes {
			walk(c)
		}
	}
	walk(err)
	pointer := func(place []string) string {
		var b strings.Builder
		for _, key := range place {
			b.WriteByte('/')
			b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
		}
		return b.String()
	}
	slices.SortStableFunc(leaves, func(a, b *jsonschema.ValidationError) int {
		return cmp.Compare(pointer(a.InstanceLocation), pointer(b.InstanceLocation))
	})
	var texts []string
	for _, e := range leaves[:min(len(leaves), maxTold)] {
		place, what := say(e)
		texts = append(texts, clip(cmp.Or(pointer(place), root))+": "+clip(what))
	}
	if more := len(leaves) - maxTold; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}
