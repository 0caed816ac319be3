package projects

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/config"
)

// Doc is the projects file with its comments.
type Doc struct {
	path string
	doc  yaml.Node
	only []byte // all of a file that has nothing but comments
}

// NotFoundError means that the file does not have the key, or no project with keys.
type NotFoundError struct{ text string }

func (e *NotFoundError) Error() string { return e.text }

// Edit changes the file at path. If edit or the check of the result fails, the file stays as it was. Edits of several
// processes are serialized.
func Edit(path string, edit func(*Doc) error) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // or a rename would put a file in the place of the link
	}
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	f := &Doc{path: path}
	info, err := os.Stat(path)
	before := []byte("# Projects and their keys: docs/guides/projects.md. Receivers read it again when it changes.\n")
	if err == nil {
		before, err = os.ReadFile(path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := f.parse(before); err != nil {
		return err
	}
	if err := edit(f); err != nil {
		return err
	}
	after, err := f.text()
	if err != nil {
		return err
	}
	if err := f.check(after); err != nil {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	return replaceFile(path, after, info)
}

func (f *Doc) parse(text []byte) error {
	if err := f.check(text); err != nil {
		return fmt.Errorf("%w; fix that first: receivers ignore the file as it is", err)
	}
	if err := config.DecodeYAML(text, &f.doc); err != nil {
		return err
	}
	if root := f.doc.Content; len(root) == 0 || root[0].Tag == "!!null" {
		if f.only = text; len(root) > 0 { // `---` or null: of such a file nothing is to be kept but comments
			f.only = commentsOf(text)
		}
		f.doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	return nil
}

func (f *Doc) text() ([]byte, error) {
	var text bytes.Buffer
	text.Write(f.only)
	enc := yaml.NewEncoder(&text)
	enc.SetIndent(2)
	err := errors.Join(enc.Encode(&f.doc), enc.Close())
	return text.Bytes(), err
}

// check rejects what receivers would reject. It accepts unset variables, which may be set for the receivers, and a file
// without projects.
func (f *Doc) check(text []byte) error {
	_, err := Parse(text, config.Environment(os.Environ()))
	if err != nil && !errors.Is(err, config.ErrUnset) && !errors.Is(err, ErrEmpty) {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

// Add adds a key to a project, and creates a missing project. It returns the key's name: that of k, or a free one.
func (f *Doc) Add(project string, k Key) (name string, err error) {
	keys, err := f.keys(project, true)
	if err != nil {
		return "", err
	}
	name = k.Name
	for i := 1; name == ""; i++ {
		if free := fmt.Sprintf("key-%d", i); keyNamed(keys, free) < 0 {
			name = free
		}
	}
	if keyNamed(keys, name) >= 0 {
		return "", fmt.Errorf("project %s has a key %q: choose another --name, or `penstock keys rotate %s %s`",
			project, name, project, name)
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	setText(n, "name", name)
	setText(n, "sha256", k.SHA256)
	if k.MinDurability != "" {
		setText(n, "min_durability", k.MinDurability)
	}
	if k.Large {
		n.Content = append(n.Content, textNode("large"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
	}
	if k.Expires != "" {
		setText(n, "expires", k.Expires)
	}
	appendKey(keys, n)
	return name, nil
}

// Remove removes a key, and returns how many keys the project has left.
func (f *Doc) Remove(project, name string) (left int, err error) {
	keys, at, err := f.find(project, name)
	if err != nil {
		return 0, err
	}
	keys.Content = slices.Delete(keys.Content, at, at+1)
	return len(keys.Content), nil
}

// Rotate replaces a key's hash. The old hash stays as another key, whose name is old, until the time ends or until it
// would have expired.
func (f *Doc) Rotate(project, name, hash string, until time.Time) (old string, ends time.Time, err error) {
	keys, at, err := f.find(project, name)
	if err != nil {
		return "", ends, err
	}
	before := keys.Content[at]
	ends = until
	if t, err := config.ParseExpiry(text(before, "expires")); err != nil {
		return "", ends, err
	} else if !t.IsZero() && t.Before(ends) {
		ends = t
	}
	fresh := &yaml.Node{Kind: yaml.MappingNode, Style: before.Style}
	for i := 0; i+1 < len(before.Content); i += 2 {
		if before.Content[i].Value != "expires" {
			fresh.Content = append(fresh.Content, plainCopy(before.Content[i]), plainCopy(before.Content[i+1]))
		}
	}
	setText(fresh, "sha256", hash)
	old = name + ".old"
	for i := 2; keyNamed(keys, old) >= 0; i++ {
		old = fmt.Sprintf("%s.old%d", name, i)
	}
	setText(before, "name", old)
	setText(before, "expires", ends.Format(time.RFC3339))
	appendKey(keys, fresh)
	return old, ends, nil
}

// ReadKeys reads only the keys of each project, because other fields may need variables of the receiver's environment.
func ReadKeys(path string) (map[string][]Key, error) {
	var file struct {
		Projects map[string]struct {
			Keys []Key `yaml:"keys"`
		} `yaml:"projects"`
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = config.DecodeYAML(text, &file)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	all := map[string][]Key{}
	for project, p := range file.Projects {
		all[project] = p.Keys
	}
	return all, nil
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

// keys is the list of a project's keys. A missing list is created, or an error names the existing projects.
func (f *Doc) keys(project string, make bool) (*yaml.Node, error) {
	at := f.doc.Content[0]
	for _, step := range []struct {
		key  string
		kind yaml.Kind
	}{{"projects", yaml.MappingNode}, {project, yaml.MappingNode}, {"keys", yaml.SequenceNode}} {
		next := child(at, step.key)
		switch {
		case next == nil && !make:
			return nil, &NotFoundError{fmt.Sprintf("project %q has no keys in %s; `penstock keys list` lists what there is",
				project, f.path)}
		case next == nil:
			next = &yaml.Node{Kind: step.kind}
			at.Content = append(at.Content, textNode(step.key), next)
			at.Style = 0
		case next.Tag == "!!null":
			next.Kind, next.Tag, next.Value = step.kind, "", ""
		case next.Kind != step.kind:
			return nil, fmt.Errorf("%s, line %d: %s is written in a way that only you can change: do it by hand", f.path,
				next.Line, step.key)
		}
		at = next
	}
	return at, nil
}

// find returns the position of a key.
func (f *Doc) find(project, name string) (keys *yaml.Node, at int, err error) {
	keys, err = f.keys(project, false)
	if err == nil {
		if at = keyNamed(keys, name); at < 0 {
			err = &NotFoundError{fmt.Sprintf("project %q has no key %q in %s; `penstock keys list %s` lists them",
				project, name, f.path, project)}
		}
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

// plainCopy copies a node without the comments, which describe the original.
func plainCopy(n *yaml.Node) *yaml.Node {
	c := *n
	c.HeadComment, c.LineComment, c.FootComment, c.Content = "", "", "", nil
	for _, e := range n.Content {
		c.Content = append(c.Content, plainCopy(e))
	}
	return &c
}

// lockFolder excludes other processes that edit files in the folder.
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

// replaceFile puts a file in the place of another: readers see one or the other as a whole. The new file has the mode,
// owner and group of the old one, whose stat is old. Without an old one (nil), it has owner and group of its folder, so
// that a command run by root makes a file that the receivers' user can read.
func replaceFile(path string, text []byte, old os.FileInfo) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	mode := os.FileMode(0o600)
	if old != nil {
		mode = old.Mode().Perm()
		err = keepOwner(f, path, old)
	} else if os.Geteuid() == 0 {
		err = ownerOfFolder(f, filepath.Dir(path))
	}
	if err == nil {
		_, err = f.Write(text)
	}
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func ownerOfFolder(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(stat.Uid), int(stat.Gid))
	}
	return nil
}

// keepOwner gives the new file at path the owner and group of the old one. If the process may not do that, receivers of
// another user could not read the file, unless everybody can.
func keepOwner(f interface{ Chown(uid, gid int) error }, path string, old os.FileInfo) error {
	stat, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	err := f.Chown(int(stat.Uid), int(stat.Gid))
	if err == nil || old.Mode().Perm()&0o004 != 0 {
		return nil
	}
	return fmt.Errorf("%s belongs to user %d and group %d, and this process (user %d) cannot keep that: %w; "+
		"nothing was changed; run the command as root or as user %d", path, stat.Uid, stat.Gid, os.Geteuid(), err, stat.Uid)
}
