package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/penstock/penstock/tools/bench/report"
)

// runPlot draws the curve of a report.
func runPlot(s streams, args []string) error {
	fs := newFlags(s, "plot FILE.json",
		"Draws the cost curve, CPU cores over events a second, from the JSON of `bench e2e --curve`.")
	out := fs.String("out", "curve.png", "`file` to write")
	files, err := parseWithArgs(fs, args)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		fmt.Fprintf(s.err, "bench plot: name one file that `bench e2e --curve RATES --json FILE` wrote; these are %d\n\n",
			len(files))
		fs.Usage()
		return errUsage
	}
	if !strings.HasSuffix(strings.ToLower(*out), ".png") {
		return fmt.Errorf("--out %s: the picture is a PNG, so its name has to end in .png", *out)
	}
	file := files[0]
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var r report.Report
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s is not what `bench e2e --json FILE` writes: %w", file, err)
	}
	png, err := report.Plot(r)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(*out, png, 0o644)
}
