package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/receiver"
)

type keyAdd struct {
	Project       string `json:"project" param:"project" arg:"PROJECT" usage:"that the key is for; one that the file has not is made"`
	Name          string `json:"name,omitempty" param:"name" usage:"of the key, for those who revoke it; empty: key-1, key-2, …"`
	MinDurability string `json:"min_durability,omitempty" param:"min-durability" usage:"memory, disk or object: what requests may not go below"`
	Large         bool   `json:"large,omitempty" param:"large" usage:"bodies above receiver.small_body are allowed"`
	Expires       string `json:"expires,omitempty" param:"expires" usage:"2026-12-31, 2026-12-31T18:00:00Z, or a duration from now, as 720h; empty: never"`
}

type keyList struct {
	Project string `json:"project,omitempty" param:"project" arg:"PROJECT" usage:"only the keys of this one"`
}

type keyRevoke struct {
	Project string `json:"project" param:"project" arg:"PROJECT" usage:"that the key is of"`
	Name    string `json:"name" param:"name" arg:"NAME" usage:"of the key"`
}

type keyRotate struct {
	keyRevoke
	Overlap string `json:"overlap" param:"overlap" default:"24h" usage:"how long the old key is good beside the new one"`
}

// keyMade is a new key, which is shown this once.
type keyMade struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	Key     string `json:"key"`
	Expires string `json:"expires,omitempty"`
	Old     string `json:"old,omitempty"` // name that the key before it has now
	Until   string `json:"old_until,omitempty"`
	File    string `json:"file"`
}

type keyRevoked struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	Left    int    `json:"keys_left"`
}

// keyInfo is a key as it stands in the file; its hash is told only so far that
// it can be found there.
type keyInfo struct {
	Project       string   `json:"project"`
	Name          string   `json:"name"`
	State         string   `json:"state"` // valid, expired, stopped
	SHA256        string   `json:"sha256_begins"`
	Scopes        []string `json:"scopes"`
	MinDurability string   `json:"min_durability,omitempty"`
	Large         bool     `json:"large"`
	Secret        bool     `json:"has_secret"`
	Expires       string   `json:"expires,omitempty"`
	Where         string   `json:"where"`
}

func keyOperations() []operation {
	return []operation{
		{
			name: "keys add", method: http.MethodPost, path: "/v1/keys", params: &keyAdd{}, item: keyMade{},
			short: "make a key for a project, and print it once",
			about: "The file that receiver.projects names gets its hash; receivers look at that file every second.\n" +
				"With several receivers bring the file to all of them.",
			print: printMade, run: addKey,
		},
		{
			name: "keys list", method: http.MethodGet, path: "/v1/keys", params: &keyList{}, item: keyInfo{},
			short:  "list the keys of projects, without what they are",
			header: []string{"PROJECT", "NAME", "STATE", "DURABILITY", "LARGE", "EXPIRES", "SHA256", "WHERE"},
			row: func(item any) []string {
				k := item.(*keyInfo)
				large := "no"
				if k.Large {
					large = "yes"
				}
				return []string{k.Project, dash(k.Name), k.State, dash(k.MinDurability), large, dash(k.Expires), k.SHA256 + "…", k.Where}
			},
			sum: func(w io.Writer, n map[string]int) { fmt.Fprintln(w, plural(n[""], "key")) },
			run: listKeys,
		},
		{
			name: "keys revoke", method: http.MethodPost, path: "/v1/keys/revoke", params: &keyRevoke{}, item: keyRevoked{},
			short: "take a key away: it is unknown to receivers within a second or two",
			print: func(w io.Writer, item any) error {
				k := item.(*keyRevoked)
				_, err := fmt.Fprintf(w, "revoked  %s of %s; %s left\n", k.Name, k.Project, plural(k.Left, "key"))
				return err
			},
			run: revokeKey,
		},
		{
			name: "keys rotate", method: http.MethodPost, path: "/v1/keys/rotate", params: &keyRotate{}, item: keyMade{},
			short: "make a new key in the place of another, which stays good for a while",
			about: "The new key takes the name, and what the old one is allowed; the old one is called NAME.old and expires.",
			print: printMade, run: rotateKey,
		},
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printMade(w io.Writer, item any) error {
	k := item.(*keyMade)
	fmt.Fprintf(w, "project  %s\nname     %s\nkey      %s\n", k.Project, k.Name, k.Key)
	if k.Expires != "" {
		fmt.Fprintf(w, "expires  %s\n", k.Expires)
	}
	if k.Old != "" {
		fmt.Fprintf(w, "old key  %s, until %s\n", k.Old, k.Until)
	}
	_, err := fmt.Fprintf(w, "\nThe key is shown this once: %s has its hash. Receivers that read this file know it in a second or two.\n", k.File)
	return err
}

// newKey is a random key, that whoever finds it knows to be ours.
func newKey() (key, hash string) {
	var random [24]byte
	rand.Read(random[:])
	key = "ps_" + base64.RawURLEncoding.EncodeToString(random[:])
	sum := receiver.HashKey(key)
	return key, hex.EncodeToString(sum[:])
}

func addKey(_ context.Context, o *operator, params any, out sink) error {
	p := params.(*keyAdd)
	if p.Project == "" {
		return errors.New("name a project: penstock keys add PROJECT")
	}
	if _, err := parseFloor(p.MinDurability); err != nil {
		return err
	}
	expires, err := expiryOf(p.Expires, time.Now())
	if err != nil {
		return err
	}
	key, hash := newKey()
	made := keyMade{Project: p.Project, Name: p.Name, Key: key, Expires: expires, File: o.cfg.Receiver.Projects}
	err = o.editProjects(func(f *projectsDoc) error {
		keys, err := f.keys(p.Project, true)
		if err != nil {
			return err
		}
		for i := 1; made.Name == ""; i++ {
			if name := fmt.Sprintf("key-%d", i); keyNamed(keys, name) < 0 {
				made.Name = name
			}
		}
		if keyNamed(keys, made.Name) >= 0 {
			return fmt.Errorf("project %s has a key %q: choose another --name, or `penstock keys rotate %s %s`", p.Project, made.Name, p.Project, made.Name)
		}
		n := &yaml.Node{Kind: yaml.MappingNode}
		setText(n, "name", made.Name)
		setText(n, "sha256", hash)
		if p.MinDurability != "" {
			setText(n, "min_durability", p.MinDurability)
		}
		if p.Large {
			n.Content = append(n.Content, textNode("large"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
		}
		if expires != "" {
			setText(n, "expires", expires)
		}
		appendKey(keys, n)
		return nil
	})
	if err != nil {
		return err
	}
	return out.item(made)
}

// expiryOf is when a key ends, as the file has it.
func expiryOf(text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := parseExpiry(text)
	if d, e := time.ParseDuration(text); e == nil {
		t, err = now.Add(d), nil
	}
	if err != nil {
		return "", fmt.Errorf("%w, or a duration from now, as 720h", err)
	}
	if !t.After(now) {
		return "", fmt.Errorf("expires %q is over: the key would be good for nothing", text)
	}
	return t.UTC().Format(time.RFC3339), nil
}

func listKeys(_ context.Context, o *operator, params any, out sink) error {
	p := params.(*keyList)
	var cfg struct { // the rest may need what only a receiver's environment has
		Projects map[string]struct {
			Keys []ProjectKey `yaml:"keys"`
		} `yaml:"projects"`
	}
	if path := o.cfg.Receiver.Projects; path != "" {
		text, err := os.ReadFile(path)
		if err == nil {
			err = decodeYAML(text, &cfg)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: %w", path, err)
		}
	} else if len(o.cfg.Receiver.Keys) == 0 {
		return o.noFile()
	} else {
		fmt.Fprintf(o.said, "There are only the keys of receiver.keys: %s\n", o.noFile())
	}
	now := time.Now()
	var all []keyInfo
	for project, c := range cfg.Projects {
		for _, k := range c.Keys {
			info := keyInfo{Project: project, Name: k.Name, State: "valid", SHA256: begins(k.SHA256), Scopes: k.Scopes, MinDurability: k.MinDurability, Large: k.Large,
				Secret: k.Secret != "", Expires: k.Expires, Where: o.cfg.Receiver.Projects}
			if info.Scopes == nil {
				info.Scopes = []string{scopeWrite}
			}
			if t, err := parseExpiry(k.Expires); err == nil && !t.IsZero() && !t.After(now) {
				info.State = "expired"
			} else if len(info.Scopes) == 0 {
				info.State = "stopped"
			}
			all = append(all, info)
		}
	}
	for _, k := range o.cfg.Receiver.Keys {
		all = append(all, keyInfo{Project: k.Project, State: "valid", SHA256: begins(k.SHA256), Scopes: []string{scopeWrite}, MinDurability: k.MinDurability, Large: true,
			Secret: k.Secret != "", Where: "receiver.keys"})
	}
	slices.SortStableFunc(all, func(a, b keyInfo) int {
		return strings.Compare(a.Project+"\x00"+a.Name, b.Project+"\x00"+b.Name)
	})
	for _, k := range all {
		if p.Project == "" || k.Project == p.Project {
			if err := out.item(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// begins is as much of a hash as tells it from others.
func begins(hash string) string { return hash[:min(len(hash), 12)] }

func revokeKey(_ context.Context, o *operator, params any, out sink) error {
	p := params.(*keyRevoke)
	if p.Project == "" || p.Name == "" {
		return errors.New("name a project and a key: penstock keys revoke PROJECT NAME (`penstock keys list` lists them)")
	}
	left := 0
	err := o.editProjects(func(f *projectsDoc) error {
		keys, at, err := f.find(p.Project, p.Name)
		if err != nil {
			return err
		}
		keys.Content = slices.Delete(keys.Content, at, at+1)
		left = len(keys.Content)
		return nil
	})
	if err != nil {
		return err
	}
	return out.item(keyRevoked{p.Project, p.Name, left})
}

func rotateKey(_ context.Context, o *operator, params any, out sink) error {
	p := params.(*keyRotate)
	if p.Project == "" || p.Name == "" {
		return errors.New("name a project and a key: penstock keys rotate PROJECT NAME (`penstock keys list` lists them)")
	}
	overlap, err := time.ParseDuration(p.Overlap)
	if err != nil || overlap < 0 {
		return fmt.Errorf("overlap %q: want a duration of 0 or more, as 24h", p.Overlap)
	}
	key, hash := newKey()
	made := keyMade{Project: p.Project, Name: p.Name, Key: key, File: o.cfg.Receiver.Projects}
	err = o.editProjects(func(f *projectsDoc) error {
		keys, at, err := f.find(p.Project, p.Name)
		if err != nil {
			return err
		}
		old := keys.Content[at]
		until := time.Now().Add(overlap).UTC()
		if t, err := parseExpiry(text(old, "expires")); err != nil {
			return err
		} else if !t.IsZero() && t.Before(until) {
			until = t
		}
		fresh := &yaml.Node{Kind: yaml.MappingNode, Style: old.Style}
		for i := 0; i+1 < len(old.Content); i += 2 {
			if old.Content[i].Value != "expires" {
				fresh.Content = append(fresh.Content, plainCopy(old.Content[i]), plainCopy(old.Content[i+1]))
			}
		}
		setText(fresh, "sha256", hash)
		made.Old = p.Name + ".old"
		for i := 2; keyNamed(keys, made.Old) >= 0; i++ {
			made.Old = fmt.Sprintf("%s.old%d", p.Name, i)
		}
		made.Until = until.Format(time.RFC3339)
		setText(old, "name", made.Old)
		setText(old, "expires", made.Until)
		appendKey(keys, fresh)
		return nil
	})
	if err != nil {
		return err
	}
	return out.item(made)
}

// projectsDoc is the projects file as it is written, with its comments.
type projectsDoc struct {
	path string
	doc  yaml.Node
	only []byte // all of a file that has nothing but comments
	cfg  Config
}

// noFile says that there is nowhere for keys to be.
func (o *operator) noFile() error {
	return fmt.Errorf("receiver.projects is empty%s: name a file there, as projects.yaml, and restart the receivers once", o.from)
}

// editProjects changes the file: it is there as before, or as edit leaves it.
func (o *operator) editProjects(edit func(*projectsDoc) error) error {
	path := o.cfg.Receiver.Projects
	if path == "" {
		return o.noFile()
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // or a rename would put a file in the place of the link
	}
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	f := &projectsDoc{path: path, cfg: o.cfg}
	mode := os.FileMode(0o600)
	before, err := os.ReadFile(path)
	switch info, statErr := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		before = []byte("# Projects and their keys: docs/projects.md. Receivers read it again when it changes.\n")
	case err != nil:
		return err
	case statErr == nil:
		mode = info.Mode().Perm()
	}
	if err := f.check(before); err != nil {
		return fmt.Errorf("%w; mend that first, receivers do not use the file as it is", err)
	}
	if err := decodeYAML(before, &f.doc); err != nil {
		return err
	}
	if root := f.doc.Content; len(root) == 0 || root[0].Tag == "!!null" {
		if f.only = before; len(root) > 0 { // `---` or null: of such a file nothing is to be kept but comments
			f.only = commentsOf(before)
		}
		f.doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	if err := edit(f); err != nil {
		return err
	}
	var after bytes.Buffer
	after.Write(f.only)
	enc := yaml.NewEncoder(&after)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&f.doc), enc.Close()); err != nil {
		return err
	}
	if err := f.check(after.Bytes()); err != nil {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	return replaceFile(path, after.Bytes(), mode)
}

// commentsOf is a file's lines that are comments.
func commentsOf(text []byte) (comments []byte) {
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			comments = append(append(comments, bytes.TrimSuffix(line, []byte("\n"))...), '\n')
		}
	}
	return comments
}

// check refuses what receivers would, but for what their environment alone tells,
// and a file that has no projects yet.
func (f *projectsDoc) check(text []byte) error {
	if _, err := parseProjects(text, environment(os.Environ())); err != nil && !errors.Is(err, errUnset) && !errors.Is(err, errNoProjects) {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

// keys is the list of a project's keys. Where there is none, it is made, or an
// error says which projects there are.
func (f *projectsDoc) keys(project string, make bool) (*yaml.Node, error) {
	at := f.doc.Content[0]
	for _, step := range []struct {
		key  string
		kind yaml.Kind
	}{{"projects", yaml.MappingNode}, {project, yaml.MappingNode}, {"keys", yaml.SequenceNode}} {
		next := child(at, step.key)
		switch {
		case next == nil && !make:
			return nil, fmt.Errorf("project %q has no keys in %s; `penstock keys list` lists what there is", project, f.path)
		case next == nil:
			next = &yaml.Node{Kind: step.kind}
			at.Content = append(at.Content, textNode(step.key), next)
			at.Style = 0
		case next.Tag == "!!null":
			next.Kind, next.Tag, next.Value = step.kind, "", ""
		case next.Kind != step.kind:
			return nil, fmt.Errorf("%s, line %d: %s is written in a way that only you can change: do it by hand", f.path, next.Line, step.key)
		}
		at = next
	}
	return at, nil
}

// find is where a key stands.
func (f *projectsDoc) find(project, name string) (keys *yaml.Node, at int, err error) {
	keys, err = f.keys(project, false)
	if err == nil {
		if at = keyNamed(keys, name); at < 0 {
			err = fmt.Errorf("project %q has no key %q in %s; `penstock keys list %s` lists them", project, name, f.path, project)
		}
	}
	if err != nil && slices.ContainsFunc(f.cfg.Receiver.Keys, func(k KeyConfig) bool { return k.Project == project }) {
		err = fmt.Errorf("%w; those in receiver.keys are the configuration's: take them out there, and restart the receivers", err)
	}
	return keys, at, err
}

func keyNamed(keys *yaml.Node, name string) int {
	return slices.IndexFunc(keys.Content, func(n *yaml.Node) bool { return text(n, "name") == name })
}

func appendKey(keys, key *yaml.Node) {
	if len(keys.Content) == 0 {
		keys.Style = 0
	}
	keys.Content = append(keys.Content, key)
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func text(n *yaml.Node, key string) string {
	if c := child(n, key); c != nil {
		return c.Value
	}
	return ""
}

func setText(n *yaml.Node, key, value string) {
	if c := child(n, key); c != nil {
		c.Kind, c.Tag, c.Value, c.Style = yaml.ScalarNode, "!!str", value, 0
		return
	}
	n.Content = append(n.Content, textNode(key), textNode(value))
}

func textNode(value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
}

// plainCopy is a node without the comments that speak of the other one.
func plainCopy(n *yaml.Node) *yaml.Node {
	c := *n
	c.HeadComment, c.LineComment, c.FootComment, c.Content = "", "", "", nil
	for _, e := range n.Content {
		c.Content = append(c.Content, plainCopy(e))
	}
	return &c
}

// lockFolder keeps others out who change files in it by the same way.
func lockFolder(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

// replaceFile puts a file in the place of another: readers see the one or the
// other as a whole.
func replaceFile(path string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
