package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/penstock/penstock/internal/version"
)

func runVersion(_ context.Context, s streams, args []string) error {
	fs := newFlags(s, "version", "Prints the version.")
	asJSON := fs.Bool("json", false, "as JSON")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	v := version.Current()
	if *asJSON {
		return json.NewEncoder(s.out).Encode(v)
	}
	_, err := fmt.Fprintf(s.out, "penstock %s %s %s\n", v.Version, v.Go, v.Platform)
	return err
}
