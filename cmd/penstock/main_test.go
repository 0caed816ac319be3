package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/version"
)

func TestRunUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
		err  error
	}{
		{nil, "Usage: penstock COMMAND", errUsage},
		{[]string{"nonsense"}, `no command "nonsense"`, errUsage},
		{[]string{"help"}, "receive", nil},
		{[]string{"help", "dev"}, "--port-base PORT", nil},
		{[]string{"dev", "--nonsense"}, "-nonsense", errUsage},
		{[]string{"dev", "x"}, `what is "x"?`, errUsage},
		{[]string{"version"}, "penstock " + version.Release, nil},
	} {
		var out strings.Builder
		err := run(context.Background(), streams{&out, &out}, tt.args)
		if !errors.Is(err, tt.err) || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%q: err %v, printed\n%s", tt.args, err, out.String())
		}
	}
}

func TestGroupHelp(t *testing.T) {
	for _, args := range [][]string{{"dlq"}, {"dlq", "nothing"}, {"errors", "list", "extra", "--no-such"}} {
		var said bytes.Buffer
		if err := run(t.Context(), streams{io.Discard, &said}, args); !errors.Is(err, errUsage) || said.Len() == 0 {
			t.Errorf("%v: %v %s", args, err, &said)
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), streams{&out, io.Discard}, []string{"help", "keys", "add"}); err != nil ||
		!strings.Contains(out.String(), "--min-durability") {
		t.Errorf("help keys add: %v\n%s", err, &out)
	}
	if err := run(t.Context(), streams{&out, io.Discard}, []string{"help", "dlq"}); err != nil ||
		!strings.Contains(out.String(), "redrive") {
		t.Errorf("help dlq: %v %s", err, &out)
	}
}
