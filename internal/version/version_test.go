package version

import (
	"runtime/debug"
	"strings"
	"testing"
)

// The version is the tag or the commit that the Go command found: of the program, or of a module that it uses.
func TestOf(t *testing.T) {
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "0123abcd"}
	for _, tt := range []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{"no build information", debug.BuildInfo{}, "devel go"},
		{"a test", debug.BuildInfo{Main: debug.Module{Path: module, Version: "(devel)"}}, "devel go"},
		{"a tag", debug.BuildInfo{Main: debug.Module{Path: module, Version: "v0.2.0"},
			Settings: []debug.BuildSetting{commit, {Key: "vcs.modified", Value: "false"}}}, "v0.2.0 (commit 0123abcd) go"},
		{"files that differ", debug.BuildInfo{Main: debug.Module{Path: module, Version: "v0.2.1-0.20261126-0123abcd+dirty"},
			Settings: []debug.BuildSetting{commit, {Key: "vcs.modified", Value: "true"}}},
			"v0.2.1-0.20261126-0123abcd+dirty (commit 0123abcd, modified) go"},
		{"installed as a module", debug.BuildInfo{Main: debug.Module{Path: module, Version: "v0.2.0"}}, "v0.2.0 go"},
		{"a dependency", debug.BuildInfo{Main: debug.Module{Path: "other", Version: "v9.0.0"},
			Deps: []*debug.Module{{Path: "else", Version: "v8.0.0"}, {Path: module, Version: "v0.2.0"}}}, "v0.2.0 go"},
	} {
		if got := Of(&tt.info).String(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got %q, want %q…", tt.name, got, tt.want)
		}
	}
	if v := Current(); v.Version == "" || v.Go == "" || v.Platform == "" {
		t.Errorf("got %+v", v)
	}
}
