package app

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader"
)

// limitedEnv makes TestMain a process that takes more memory than it may.
const limitedEnv = "PENSTOCK_UNIT_LIMITED"

func TestMain(m *testing.M) {
	if os.Getenv(limitedEnv) != "" {
		if err := limitAlone(256 << 20); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print(begunLine)
		held := make([][]byte, 1024)
		for i := range held {
			held[i] = make([]byte, 1<<20)
			held[i][0] = 1
		}
		runtime.KeepAlive(held)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A process that takes too much is killed, and that is a verdict.
func TestAloneIsLimited(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), selfPath())
	cmd.Env = append(os.Environ(), limitedEnv+"=1")
	out, err := cmd.Output()
	if err == nil {
		t.Fatal("a process took 1 GiB, and its limit is 256 MiB")
	}
	if v := verdict(out, err); !errors.Is(v, loader.ErrKilled) {
		t.Errorf("verdict %v of %v, want %v", v, err, loader.ErrKilled)
	}
}

// Only a process that had begun, and was not told to end, speaks of its object.
func TestVerdict(t *testing.T) {
	die := func(script string) error { return exec.Command("sh", "-c", script).Run() }
	for _, c := range []struct {
		out    string
		failed error
		killed bool
		class  retry.Class
	}{
		{begunLine + `{}` + "\n", nil, false, retry.Unknown},
		{begunLine + `{"error":"away","class":"outage"}`, nil, false, retry.Outage},
		{begunLine, die("kill -9 $$"), true, retry.Unknown},
		{begunLine, die("exit 2"), true, retry.Unknown},
		{begunLine, die("kill -15 $$"), false, retry.Outage},
		{begunLine, die("exit 1"), false, retry.Outage},
		{"", die("kill -9 $$"), false, retry.Outage},
		{"", die("exit 2"), false, retry.Outage},
		{"", syscall.ENOENT, false, retry.Outage},
	} {
		err := verdict([]byte(c.out), c.failed)
		if got := errors.Is(err, loader.ErrKilled); got != c.killed || retry.ClassOf(err) != c.class {
			t.Errorf("%q and %v: %v of class %s, want killed %v, class %s", c.out, c.failed, err, retry.ClassOf(err), c.killed,
				c.class)
		}
	}
}
