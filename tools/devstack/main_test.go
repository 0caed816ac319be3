package devstack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// asVariable makes the test program play another part, in a separate process.
const asVariable = "PENSTOCK_DEVSTACK_TEST_AS"

func TestMain(m *testing.M) {
	switch os.Getenv(asVariable) {
	case "fetcher": // fetches nats-server with the go on PATH into $PENSTOCK_CACHE
		path, err := (&Fetcher{Cache: os.Getenv("PENSTOCK_CACHE"), Progress: os.Stderr}).NATS(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(path)
	case "parent": // starts a child, prints its pid, and waits
		p, err := Start(context.Background(), Command{Name: "sleep", Path: "/bin/sleep", Args: []string{"600"}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(p.Pid)
		time.Sleep(10 * time.Minute)
	default:
		os.Exit(m.Run())
	}
}

// self runs this test program in another part.
func self(t *testing.T, as string, env ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(append(os.Environ(), asVariable+"="+as), env...)
	return cmd
}
