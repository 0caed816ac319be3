// Package operate has the operators' operations with their HTTP API, and the status of roles.
package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tenant"
)

// RoleStatus is a role's answer to GET /status.
type RoleStatus struct {
	Role     string              `json:"role"`
	Version  string              `json:"version"`
	Error    string              `json:"error,omitempty"`    // why the role does not work; empty: it works
	Bucket   string              `json:"bucket,omitempty"`   // why the bucket is unusable; empty: usable
	Projects string              `json:"projects,omitempty"` // why the projects file is unusable; empty: usable
	Batchers []batcher.Stats     `json:"batchers,omitempty"`
	Usage    *tenant.Usage       `json:"usage,omitempty"` // of quotas; only a receiver's
	Redacted []receiver.Redacted `json:"redacted,omitempty"`
	Intake   *receiver.Counts    `json:"intake,omitempty"` // only a receiver's
	Loaders  []loader.Stats      `json:"loaders,omitempty"`
}

// Warnings are problems for an operator although the role works.
func (s RoleStatus) Warnings() (all []string) {
	if s.Bucket != "" {
		all = append(all, s.Bucket)
	}
	for _, b := range s.Batchers {
		if b.Refused > 0 {
			all = append(all, fmt.Sprintf("%s: batches wait on disk: %s", b.Pipeline, b.Error))
		}
	}
	return append(all, s.files()...)
}

// files warns of unreadable files: the projects file, and parts of the write-ahead log.
func (s RoleStatus) files() (all []string) {
	if s.Projects != "" {
		all = append(all, s.Projects)
	}
	for _, b := range s.Batchers {
		if b.SetAside > 0 {
			all = append(all, fmt.Sprintf("%s: %s of the write-ahead log set aside as *.corrupt or *.unreadable; "+
				"see the log and docs/operate/runbook.md", b.Pipeline, show.Plural(b.SetAside, "file")))
		}
	}
	return all
}

// AskRole returns the status of the role with the admin listener at url.
func AskRole(ctx context.Context, client *http.Client, url string) (RoleStatus, error) {
	var st RoleStatus
	text, err := GetAdmin(ctx, client, url, "/status")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(text, &st); err != nil {
		return st, fmt.Errorf("%s/status: %w", url, err)
	}
	return st, nil
}

// GetAdmin returns a page of a role's admin listener.
func GetAdmin(ctx context.Context, client *http.Client, url, page string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+page, nil)
	if err != nil {
		return nil, fmt.Errorf("status.admins %q: %w", url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", req.URL, withoutURL(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s%s: %s", url, page, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// withoutURL removes method and URL from a client's error: the message around it has them.
func withoutURL(err error) error {
	if e := new(url.Error); errors.As(err, &e) {
		return e.Err
	}
	return err
}
