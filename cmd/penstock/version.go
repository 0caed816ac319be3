package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version of this source.
const release = "0.1.0"

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func version() versionInfo {
	v := versionInfo{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	return v
}

func runVersion(_ context.Context, s streams, args []string) error {
	fs := newFlags(s, "version", "Prints the version.")
	asJSON := fs.Bool("json", false, "as JSON")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	v := version()
	if *asJSON {
		return json.NewEncoder(s.out).Encode(v)
	}
	_, err := fmt.Fprintf(s.out, "penstock %s %s %s\n", v.Version, v.Go, v.Platform)
	return err
}
