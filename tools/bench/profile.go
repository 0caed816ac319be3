package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/google/pprof/profile"

	"github.com/penstock/penstock/internal/operate"
)

// profiles is CPU profiles that are being taken of several processes.
type profiles struct {
	into  string // empty: none are taken
	taken chan takenProfile
	of    int
}

type takenProfile struct {
	profile *profile.Profile
	err     error
}

// startProfiles takes a profile of each role while events are sent.
func (b *benchmark) startProfiles(ctx context.Context, roles ...*roleProcess) *profiles {
	p := &profiles{into: b.profile, taken: make(chan takenProfile, len(roles))}
	if p.into == "" {
		return p
	}
	page := fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(b.duration.Seconds()))
	for _, r := range roles {
		p.of++
		go func() {
			data, err := operate.GetAdmin(ctx, http.DefaultClient, r.admin, page)
			var taken takenProfile
			if taken.err = err; err == nil {
				taken.profile, taken.err = profile.Parse(bytes.NewReader(data))
			}
			p.taken <- taken
		}()
	}
	return p
}

// write writes the profiles into one file, for a compiler: without paths of this machine.
func (p *profiles) write() error {
	var all []*profile.Profile
	for range p.of {
		taken := <-p.taken
		if taken.err != nil {
			return fmt.Errorf("take a profile: %w", taken.err)
		}
		all = append(all, taken.profile)
	}
	if len(all) == 0 {
		return nil
	}
	merged, err := profile.Merge(all)
	if err != nil {
		return fmt.Errorf("merge profiles: %w", err)
	}
	merged.Comments, merged.TimeNanos = nil, 0
	for _, m := range merged.Mapping {
		m.File, m.BuildID = "", ""
	}
	for _, f := range merged.Function {
		f.Filename = "" // a compiler goes by names and lines
	}
	file, err := os.Create(p.into)
	if err != nil {
		return err
	}
	if err := merged.Write(file); err != nil {
		file.Close()
		return fmt.Errorf("write %s: %w", p.into, err)
	}
	return file.Close()
}
