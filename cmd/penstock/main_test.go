package main

import (
	"context"
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
		if err != tt.err || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%q: err %v, printed\n%s", tt.args, err, out.String())
		}
	}
}
