package operate

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/projects"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/receiver"
)

// projectInfo is a project with its limits and usage.
type projectInfo struct {
	Project     string              `json:"project"`
	Keys        int                 `json:"keys"`
	EventRate   float64             `json:"events_per_second,omitempty"` // 0: no limit
	ByteRate    float64             `json:"bytes_per_second,omitempty"`
	QuotaEvents int64               `json:"quota_events,omitempty"` // for each UTC day
	QuotaBytes  int64               `json:"quota_bytes,omitempty"`
	UsedEvents  int64               `json:"used_events"` // today
	UsedBytes   int64               `json:"used_bytes"`
	Names       []string            `json:"names,omitempty"` // allowed names of events; none: any
	Keep        *float64            `json:"sample_keep,omitempty"`
	Redacted    []receiver.Redacted `json:"redacted,omitempty"`
}

func projectsOperation() Operation {
	return Operation{
		Name: "projects", method: http.MethodGet, path: "/v1/projects", params: &struct{}{}, item: projectInfo{},
		Short: "list projects with their limits, what they used today, and what was dropped or hashed",
		About: "Reads the file receiver.projects, and asks the receivers in status.admins what was used.\n" +
			"Receivers count the use of projects that have a quota. Counts of dropped and hashed values begin\n" +
			"at 0 when a receiver starts.",
		header: []string{"PROJECT", ">KEYS", ">EVENTS TODAY", ">QUOTA", ">BYTES TODAY", ">QUOTA", ">EVENTS/S", ">BYTES/S",
			"DROPPED AND HASHED"},
		row: rows(func(p *projectInfo) []string {
			limit := func(n float64, text string) string {
				if n == 0 {
					return "-"
				}
				return text
			}
			var redacted []string
			for _, r := range p.Redacted {
				redacted = append(redacted, fmt.Sprintf("%s %s %d", r.Done, r.Path, r.Count))
			}
			quota := float64(p.QuotaEvents + p.QuotaBytes) // receivers count only projects with a quota
			return []string{p.Project, fmt.Sprint(p.Keys), limit(quota, fmt.Sprint(p.UsedEvents)),
				limit(float64(p.QuotaEvents), fmt.Sprint(p.QuotaEvents)), limit(quota, show.Bytes(p.UsedBytes)),
				limit(float64(p.QuotaBytes), show.Bytes(p.QuotaBytes)), limit(p.EventRate, fmt.Sprint(p.EventRate)),
				limit(p.ByteRate, show.Bytes(int64(p.ByteRate))), dash(strings.Join(redacted, ", "))}
		}),
		sum: func(w io.Writer, _ any, n map[string]int) { fmt.Fprintln(w, show.Plural(n[""], "project")) },
		run: runs(listProjects),
	}
}

func listProjects(ctx context.Context, o *Operator, _ *struct{}, out sink) error {
	path := o.Config.Receiver.Projects
	if path == "" {
		return o.noFile()
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err := projects.Parse(text, config.Environment(os.Environ()))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	all := map[string]*projectInfo{}
	for name, p := range file.Projects {
		info := &projectInfo{Project: name, Keys: len(p.Keys), EventRate: float64(p.Rate.Events),
			ByteRate: float64(p.Rate.Bytes), QuotaEvents: p.Quota.Events, QuotaBytes: int64(p.Quota.Bytes), Names: p.Names}
		if p.Sample != nil {
			info.Keep = p.Sample.Keep
		}
		for done, paths := range map[string][]string{"drop": p.Drop, "hash": p.Hash} {
			for _, path := range paths {
				info.Redacted = append(info.Redacted, receiver.Redacted{Project: name, Path: path, Done: done})
			}
		}
		all[name] = info
	}
	client := o.Config.Status.TLS.HTTPClient()
	var unasked error
	for _, url := range o.admins() {
		role, err := AskRole(ctx, client, url)
		if err != nil {
			unasked = fmt.Errorf("the used quota is incomplete: %w", err)
		}
		addUse(all, role)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		info := all[name]
		slices.SortFunc(info.Redacted, func(a, b receiver.Redacted) int {
			return strings.Compare(a.Done+a.Path, b.Done+b.Path)
		})
		if err := out.item(*info); err != nil {
			return err
		}
	}
	return unasked
}

// addUse adds the usage that a receiver has counted.
func addUse(all map[string]*projectInfo, role RoleStatus) {
	if role.Usage != nil {
		for name, used := range role.Usage.Projects {
			if info := all[name]; info != nil {
				info.UsedEvents += used.Events
				info.UsedBytes += used.Bytes
			}
		}
	}
	for _, r := range role.Redacted {
		info := all[r.Project]
		if info == nil {
			continue
		}
		for i := range info.Redacted {
			if at := &info.Redacted[i]; at.Path == r.Path && at.Done == r.Done {
				at.Count += r.Count
			}
		}
	}
}
