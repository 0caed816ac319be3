package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/google/pprof/profile"
)

// profiles are running CPU profiles of several processes.
type profiles struct {
	into  string // empty: no profiles
	taken chan takenProfile
	of    int
}

type takenProfile struct {
	profile *profile.Profile
	err     error
}

// startProfiles starts a profile of each role while events are sent.
func (b *benchmark) startProfiles(ctx context.Context, token string, roles ...*roleProcess) *profiles {
	p := &profiles{into: b.profile, taken: make(chan takenProfile, len(roles))}
	if p.into == "" {
		return p
	}
	page := fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(b.duration.Seconds()))
	for _, r := range roles {
		p.of++
		go func() {
			var taken takenProfile
			taken.profile, taken.err = takeProfile(ctx, r.admin+page, token)
			p.taken <- taken
		}()
	}
	return p
}

func takeProfile(ctx context.Context, url, token string) (*profile.Profile, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return profile.Parse(resp.Body)
}

// write merges the profiles into one file for a compiler, without paths of this machine.
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
		f.Filename = "" // the compiler uses names and lines
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
