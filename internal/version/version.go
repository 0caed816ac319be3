// Package version is which Penstock this is.
package version

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// module is ours. In the benchmarks it is a dependency.
const module = "github.com/penstock/penstock"

// Info is a version.
type Info struct {
	Version  string `json:"version"`            // the tag, or a pseudo-version of the commit; devel: built without either
	Revision string `json:"revision,omitempty"` // the commit
	Modified bool   `json:"modified,omitempty"` // files differed from the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Current is the version of this program.
func Current() Info {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return Of(info)
}

// Of is the version of the program with this build information, which the Go command writes into each program.
func Of(info *debug.BuildInfo) Info {
	v := Info{Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module && m.Version != "(devel)" {
			v.Version = m.Version
		}
	}
	v.Version = cmp.Or(v.Version, "devel")
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// String is the version for people.
func (v Info) String() string {
	commit := ""
	switch {
	case v.Modified:
		commit = fmt.Sprintf(" (commit %s, modified)", v.Revision)
	case v.Revision != "":
		commit = fmt.Sprintf(" (commit %s)", v.Revision)
	}
	return fmt.Sprintf("%s%s %s %s", v.Version, commit, v.Go, v.Platform)
}
