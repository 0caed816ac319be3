package devstack

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestChildrenDieWithAKilledParent(t *testing.T) {
	parent := self(t, "parent")
	output, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child := strings.TrimSpace(line)
	if !runs(child) {
		t.Fatalf("child %q does not run", child)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	waitFor(t, "the child's end", func() bool { return !runs(child) })
}

// runs reports whether the process exists and is not a zombie.
func runs(pid string) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
