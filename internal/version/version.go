// Package version is which Penstock this is.
package version

import (
	"runtime"
	"runtime/debug"
)

// Release is the version of this source.
const Release = "0.1.0"

// Info is what a version says.
type Info struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Current is that of this program.
func Current() Info {
	v := Info{Version: Release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	return v
}
