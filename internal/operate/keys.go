package operate

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/projects"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/receiver/tenant"
)

type keyAdd struct {
	Project       string `json:"project" param:"project" arg:"PROJECT" usage:"project of the key; it is created if the file does not have it"`
	Name          string `json:"name,omitempty" param:"name" usage:"name of the key, to revoke it later; empty: key-1, key-2, …"`
	MinDurability string `json:"min_durability,omitempty" param:"min-durability" enum:"memory disk object" usage:"lowest durability that requests may ask for: memory, disk or object"`
	Large         bool   `json:"large,omitempty" param:"large" usage:"allow bodies above receiver.small_body"`
	Expires       string `json:"expires,omitempty" param:"expires" usage:"expiry: 2026-12-31, 2026-12-31T18:00:00Z, or a duration from now, such as 720h; empty: never"`
}

type keyList struct {
	Project string `json:"project,omitempty" param:"project" arg:"PROJECT" usage:"only the keys of this project"`
}

type keyRevoke struct {
	Project string `json:"project" param:"project" arg:"PROJECT" usage:"project of the key"`
	Name    string `json:"name" param:"name" arg:"NAME" usage:"name of the key"`
}

type keyRotate struct {
	keyRevoke
	Overlap string `json:"overlap" param:"overlap" default:"24h" usage:"how long the old key stays valid"`
}

// keyMade is a new key. This is the only time that it is shown.
type keyMade struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	Key     string `json:"key"`
	Expires string `json:"expires,omitempty"`
	Old     string `json:"old,omitempty"` // new name of the previous key
	Until   string `json:"old_until,omitempty"`
	File    string `json:"file"`
}

type keyRevoked struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	Left    int    `json:"keys_left"`
}

// keyInfo is a key in the file. It has only the beginning of the hash, which identifies the key there.
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

func keyOperations() []Operation {
	return []Operation{
		{
			Name: "keys add", method: http.MethodPost, path: "/v1/keys", params: &keyAdd{}, item: keyMade{},
			Short: "create an API key for a project, and print it once",
			About: "Stores the hash of the key in the file receiver.projects, which receivers read every second.\n" +
				"If receivers run on several machines, copy the file to each of them.",
			print: prints(printMade), run: runs(addKey),
		},
		{
			Name: "keys list", method: http.MethodGet, path: "/v1/keys", params: &keyList{}, item: keyInfo{},
			Short:  "list the keys of projects, without the secrets",
			header: []string{"PROJECT", "NAME", "STATE", "DURABILITY", "LARGE", "EXPIRES", "SHA256", "WHERE"},
			row: rows(func(k *keyInfo) []string {
				large := "no"
				if k.Large {
					large = "yes"
				}
				return []string{k.Project, dash(k.Name), k.State, dash(k.MinDurability), large, dash(k.Expires), k.SHA256 + "…",
					k.Where}
			}),
			sum: func(w io.Writer, _ any, n map[string]int) { fmt.Fprintln(w, show.Plural(n[""], "key")) },
			run: runs(listKeys),
		},
		{
			Name: "keys revoke", method: http.MethodPost, path: "/v1/keys/revoke", params: &keyRevoke{}, item: keyRevoked{},
			Short: "revoke a key: receivers reject it within two seconds",
			print: prints(func(w io.Writer, k *keyRevoked) error {
				_, err := fmt.Fprintf(w, "revoked  %s of %s; %s left\n", k.Name, k.Project, show.Plural(k.Left, "key"))
				return err
			}),
			run: runs(revokeKey),
		},
		{
			Name: "keys rotate", method: http.MethodPost, path: "/v1/keys/rotate", params: &keyRotate{}, item: keyMade{},
			Short: "replace a key by a new one; the old one stays valid for a while",
			About: "The new key gets the name and the scopes. The old key is renamed to NAME.old and expires.",
			print: prints(printMade), run: runs(rotateKey),
		},
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printMade(w io.Writer, k *keyMade) error {
	fmt.Fprintf(w, "project  %s\nname     %s\nkey      %s\n", k.Project, k.Name, k.Key)
	if k.Expires != "" {
		fmt.Fprintf(w, "expires  %s\n", k.Expires)
	}
	if k.Old != "" {
		fmt.Fprintf(w, "old key  %s, until %s\n", k.Old, k.Until)
	}
	_, err := fmt.Fprintf(w,
		"\nThe key is shown once: %s stores only its hash. Receivers that read this file accept it within two seconds.\n",
		k.File)
	return err
}

// newKey creates a random key. Its prefix shows anyone who finds it that it is Penstock's.
func newKey() (key, hash string) {
	var random [24]byte
	rand.Read(random[:])
	key = "ps_" + base64.RawURLEncoding.EncodeToString(random[:])
	sum := tenant.HashKey(key)
	return key, hex.EncodeToString(sum[:])
}

func (p *keyAdd) check(*Operator) error {
	_, err := expiryOf(p.Expires, time.Now())
	return err
}

func addKey(_ context.Context, o *Operator, p *keyAdd, out sink) error {
	expires, err := expiryOf(p.Expires, time.Now())
	if err != nil {
		return err
	}
	key, hash := newKey()
	made := keyMade{Project: p.Project, Name: p.Name, Key: key, Expires: expires, File: o.Config.Receiver.Projects}
	err = o.editProjects(p.Project, func(f *projects.Doc) (err error) {
		made.Name, err = f.Add(p.Project, projects.Key{Name: p.Name, SHA256: hash, MinDurability: p.MinDurability,
			Large: p.Large, Expires: expires})
		return err
	})
	if err != nil {
		return err
	}
	return out.item(made)
}

// expiryOf returns a key's expiry in the file's format.
func expiryOf(text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := config.ParseExpiry(text)
	if d, e := parseAge(text); e == nil {
		t, err = now.Add(d), nil
	}
	if err != nil {
		return "", Usagef("%w, or a duration from now, such as 720h", err)
	}
	if !t.After(now) {
		return "", Usagef("--expires %q is in the past: the key would never be valid", text)
	}
	return t.UTC().Format(time.RFC3339), nil
}

func listKeys(_ context.Context, o *Operator, p *keyList, out sink) error {
	var inFile map[string][]projects.Key
	if path := o.Config.Receiver.Projects; path != "" {
		var err error
		if inFile, err = projects.ReadKeys(path); err != nil {
			return err
		}
	} else if len(o.Config.Receiver.Keys) == 0 {
		return o.noFile()
	} else {
		fmt.Fprintf(o.Said, "There are only the keys of receiver.keys: %s\n", o.noFile())
	}
	now := time.Now()
	var all []keyInfo
	for project, keys := range inFile {
		for _, k := range keys {
			info := keyInfo{Project: project, Name: k.Name, State: "valid", SHA256: begins(k.SHA256), Scopes: k.Scopes,
				MinDurability: k.MinDurability, Large: k.Large,
				Secret: k.Secret != "", Expires: k.Expires, Where: o.Config.Receiver.Projects}
			if info.Scopes == nil {
				info.Scopes = []string{projects.ScopeWrite}
			}
			if t, err := config.ParseExpiry(k.Expires); err == nil && !t.IsZero() && !t.After(now) {
				info.State = "expired"
			} else if len(info.Scopes) == 0 {
				info.State = "stopped"
			}
			all = append(all, info)
		}
	}
	for _, k := range o.Config.Receiver.Keys {
		all = append(all, keyInfo{Project: k.Project, State: "valid", SHA256: begins(k.SHA256),
			Scopes: []string{projects.ScopeWrite}, MinDurability: k.MinDurability, Large: true,
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

// begins is the beginning of a hash, long enough to identify it.
func begins(hash string) string { return hash[:min(len(hash), 12)] }

func revokeKey(_ context.Context, o *Operator, p *keyRevoke, out sink) error {
	left := 0
	err := o.editProjects(p.Project, func(f *projects.Doc) (err error) {
		left, err = f.Remove(p.Project, p.Name)
		return err
	})
	if err != nil {
		return err
	}
	return out.item(keyRevoked{p.Project, p.Name, left})
}

func (p *keyRotate) check(*Operator) error {
	_, err := parseDuration("--overlap", p.Overlap)
	return err
}

func rotateKey(_ context.Context, o *Operator, p *keyRotate, out sink) error {
	overlap, err := parseDuration("--overlap", p.Overlap)
	if err != nil {
		return err
	}
	key, hash := newKey()
	made := keyMade{Project: p.Project, Name: p.Name, Key: key, File: o.Config.Receiver.Projects}
	err = o.editProjects(p.Project, func(f *projects.Doc) error {
		old, ends, err := f.Rotate(p.Project, p.Name, hash, time.Now().Add(overlap).UTC())
		made.Old, made.Until = old, ends.Format(time.RFC3339)
		return err
	})
	if err != nil {
		return err
	}
	return out.item(made)
}

// noFile returns the error of a configuration without a projects file.
func (o *Operator) noFile() error {
	return fmt.Errorf("receiver.projects is empty%s: name a file there, as projects.yaml, and restart the receivers once",
		o.From)
}

// editProjects changes the projects file.
func (o *Operator) editProjects(project string, edit func(*projects.Doc) error) error {
	if o.Config.Receiver.Projects == "" {
		return o.noFile()
	}
	err := projects.Edit(o.Config.Receiver.Projects, edit)
	inConfig := func(k config.Key) bool { return k.Project == project }
	if _, ok := errors.AsType[*projects.NotFoundError](err); ok && slices.ContainsFunc(o.Config.Receiver.Keys, inConfig) {
		err = fmt.Errorf("%w; those in receiver.keys are the configuration's: take them out there, and restart the receivers",
			err)
	}
	return err
}
