package main

import (
	"debug/buildinfo"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/internal/version"
)

// said runs a command, and returns what it printed.
func said(t *testing.T, args ...string) (out, errs string, err error) {
	t.Helper()
	var o, e strings.Builder
	err = run(t.Context(), streams{&o, &e}, args)
	return o.String(), e.String(), err
}

// Wrong usage ends with errUsage, and names what is wrong and what was probably meant.
func TestWrongUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("PENSTOCK_PROCESS_DRAIN", "1s") // a configuration
	for _, tt := range []struct{ args, want string }{
		{"", "Usage: penstock COMMAND"},
		{"dlq", "Usage: penstock dlq COMMAND"},
		{"nonsense", `penstock: unknown command "nonsense"` + "\n"},
		{"recieve", `penstock: unknown command "recieve". Did you mean "receive"?`},
		{"statsu --json", `penstock: unknown command "statsu". Did you mean "status"?`},
		{"--verison", "penstock: unknown flag --verison. Did you mean --version?"},
		{"objcts list", `penstock: unknown command "objcts". Did you mean "objects"?`},
		{"dlq lst", `penstock dlq: unknown command "lst". Did you mean "list"?`},
		{"help objects lst", `penstock help: unknown command "lst". Did you mean "list"?`},
		{"help nonsense", `penstock help: unknown command "nonsense"`},
		{"errors list --jsn", "penstock errors list: unknown flag --jsn. Did you mean --json?"},
		{"errors list --sicne=1h", "penstock errors list: unknown flag --sicne. Did you mean --since?"},
		{"errors list -json", "penstock errors list: unknown flag -json. Did you mean --json?"},
		{"errors list --nothing-like-it", "penstock errors list: unknown flag --nothing-like-it\n"},
		{"errors list --limit many", `penstock errors list: invalid argument "many" for "--limit" flag: limit: "many" is not`},
		{"dev x", `penstock dev: unexpected argument "x"`},
		{"receive x", `penstock receive: unexpected argument "x"`},
		{"verify foo", `penstock verify: unexpected argument "foo"`},
		{"keys revoke game ci more", `penstock keys revoke: unexpected argument "more"`},
		{"keys add", "penstock keys add: PROJECT is missing: penstock keys add PROJECT\n"},
		{"keys revoke game", "penstock keys revoke: NAME is missing: penstock keys revoke PROJECT NAME\n"},
		{"reingest", "penstock reingest: choose objects by one of KEY, --prefix and --since"},
		{"dlq redrive", "penstock dlq redrive: no object is chosen"},
		{"errors redrive", "penstock errors redrive: no failure record is chosen"},
		{"errors list --stage nowhere", `penstock errors list: --stage "nowhere": set receiver, batcher or loader`},
		{"objects list --state laoded", `penstock objects list: --state "laoded": Did you mean "loaded"? Set new, loading, ` +
			"failed, dead, dropped or loaded\n"},
		{"dlq list --pipeline event", `--pipeline "event": Did you mean "events"? Set events or errors`},
		{"reingest --since 1h --pipeline logs", `--pipeline "logs": set events or errors`},
		{"keys add game --min-durability Memory", `--min-durability "Memory": Did you mean "memory"? Set memory, disk or object`},
		{"dev --format json", `penstock dev: --format "json": Did you mean "ndjson"? Set parquet or ndjson`},
		{"dev --events -1", "penstock dev: --events and --demo take a number of 1 or more"},
		{"completion", "Usage: penstock completion"},
		{"completion klingon", `penstock completion: unknown command "klingon"` + "\n"},
		{"completion fsh", `penstock completion: unknown command "fsh". Did you mean "fish"?`},
		{"sweep --grace -1s", `penstock sweep: --grace "-1s": set a duration of 0 or more`},
		{"bench e2e --rate 1", `"go run -C tools/bench . COMMAND"`},
	} {
		out, errs, err := said(t, strings.Fields(tt.args)...)
		if !errors.Is(err, errUsage) || out != "" || !strings.Contains(errs, tt.want) {
			t.Errorf("%q: got %v, %q and\n%s\nwant %s", tt.args, err, out, errs, tt.want)
		}
	}
}

// walk calls each with every command.
func walk(cmd *cobra.Command, each func(*cobra.Command)) {
	each(cmd)
	for _, c := range cmd.Commands() {
		walk(c, each)
	}
}

// Every command has help by --help, -h and help, on standard output, in lines that fit on a screen.
func TestHelpOfEveryCommand(t *testing.T) {
	n := 0
	walk(newRoot(streams{}), func(cmd *cobra.Command) {
		if cmd.DisableFlagParsing || strings.HasPrefix(cmd.CommandPath(), "penstock completion ") {
			return
		}
		n++
		path := strings.Fields(cmd.CommandPath())[1:]
		want, errs, err := said(t, append(path, "--help")...)
		if err != nil || errs != "" || !strings.Contains(want, "Usage: "+cmd.CommandPath()) ||
			!strings.Contains(want, "show this help") {
			t.Errorf("%s --help: %v, %q and\n%s", cmd.CommandPath(), err, errs, want)
		}
		for line := range strings.SplitSeq(want, "\n") {
			if utf8.RuneCountInString(line) > 100 {
				t.Errorf("%s --help: wider than 100 columns: %s", cmd.CommandPath(), line)
			}
		}
		for _, args := range [][]string{append(path, "-h"), append([]string{"help"}, path...)} {
			if out, _, err := said(t, args...); err != nil || out != want {
				t.Errorf("%q: %v and\n%s\nwant\n%s", args, err, out, want)
			}
		}
		if cmd.Short == "" && !cmd.Hidden || strings.HasSuffix(cmd.Short, ".") && cmd.HasParent() {
			t.Errorf("%s: short description %q", cmd.CommandPath(), cmd.Short)
		}
	})
	if n < 25 {
		t.Errorf("%d commands, want all", n)
	}
}

// The help shows which arguments a command needs, and its own flags before those of all commands.
func TestUsage(t *testing.T) {
	for _, tt := range []struct{ command, usage, own string }{
		{"keys add", "keys add PROJECT [flags]", "--name text"},
		{"keys list", "keys list [PROJECT] [flags]", ""},
		{"keys revoke", "keys revoke PROJECT NAME [flags]", ""},
		{"objects show", "objects show KEY… [flags]", "--row"},
		{"reingest", "reingest [KEY… | -] [flags]", "--replace"},
		{"errors redrive", "errors redrive [ID…] [flags]", "--through command"},
		{"status", "status [flags]", "--watch"},
	} {
		out, _, err := said(t, append(strings.Fields(tt.command), "--help")...)
		own, shared := strings.Index(out, tt.own), strings.Index(out, "--config file")
		if err != nil || !strings.Contains(out, "Usage: penstock "+tt.usage+"\n") || own < 0 || shared < own {
			t.Errorf("%s: %v\n%s", tt.command, err, out)
		}
	}
}

// Former names of commands still work. No help shows them.
func TestFormerNames(t *testing.T) {
	for old, now := range map[string]string{"ls": "list", "cat": "show"} {
		want, _, err := said(t, "objects", now, "--help")
		if got, _, e := said(t, "objects", old, "--help"); e != nil || err != nil || got != want || strings.Contains(got, old+" ") {
			t.Errorf("objects %s: %v %v\n%s\nwant\n%s", old, e, err, got, want)
		}
	}
}

func TestCompletion(t *testing.T) {
	for shell, want := range map[string]string{"bash": "complete -o", "zsh": "#compdef penstock", "fish": "complete -c penstock"} {
		if out, errs, err := said(t, "completion", shell); err != nil || errs != "" || !strings.Contains(out, want) {
			t.Errorf("%s: %v %s\n%.300s", shell, err, errs, out)
		}
	}
	for args, want := range map[string]string{"objects ": "find\n", "errors list --st": "--stage", "dlq re": "redrive\t"} {
		if out, _, err := said(t, append([]string{"__complete"}, strings.Split(args, " ")...)...); err != nil ||
			!strings.Contains(out, strings.TrimSuffix(want, "\n")) {
			t.Errorf("%q: %v\n%s\nwant %s", args, err, out, want)
		}
	}
}

// The program has version and commit of its build, and exit statuses for wrong usage and for failure.
func TestBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "penstock")
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	built, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	want := version.Of(built)
	t.Chdir(dir)
	for _, tt := range []struct {
		args   string
		status int
		want   string
	}{
		{"--version", 0, "penstock " + want.String() + "\n"},
		{"-v", 0, "penstock " + want.String() + "\n"},
		{"version", 0, "penstock " + want.String() + "\n"},
		{"version --json", 0, `{"version":"` + want.Version + `"`},
		{"--help", 0, "Usage: penstock COMMAND"},
		{"recieve", 2, "Did you mean"},
		{"status --config none.yaml", 1, "penstock: configuration: open none.yaml: "},
		{"status --config none.yaml --server http://127.0.0.1:1", 1, "penstock: configuration: open none.yaml: "},
	} {
		cmd := exec.CommandContext(t.Context(), binary, strings.Fields(tt.args)...)
		text, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != tt.status || !strings.Contains(string(text), tt.want) ||
			strings.Contains(string(text), "\x1b") {
			t.Errorf("%s: %v\n%s\nwant exit status %d and %s", tt.args, err, text, tt.status, tt.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "penstock-data")); err == nil {
		t.Error("a command wrote data")
	}
}
