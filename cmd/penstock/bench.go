package main

import (
	"context"
	"fmt"
)

// runBench says where the benchmarks are. They are a module of their own, so that the server does not link them.
func runBench(_ context.Context, s streams, args []string) error {
	sub := "COMMAND"
	if len(args) > 0 {
		sub = args[0]
	}
	fmt.Fprintf(s.err, "penstock bench has moved: in a clone of the repository, run `go run -C tools/bench . %s`\n", sub)
	return errUsage
}
