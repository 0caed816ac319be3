package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// runBench says where the benchmarks are. They are a module of their own, so that the server does not link them.
func runBench(_ context.Context, s streams, args []string) error {
	sub := "COMMAND"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		sub = args[0]
	}
	moved := fmt.Sprintf("penstock bench has moved: in a clone of the repository, run `go run -C tools/bench . %s`\n", sub)
	if slices.ContainsFunc(args, func(a string) bool { return a == "-h" || a == "-help" || a == "--help" }) {
		fmt.Fprint(s.out, moved)
		return nil
	}
	fmt.Fprint(s.err, moved)
	return errUsage
}
