package ask

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock/penstock/tools/bench/report"
)

// Report is what bench ask prints.
type Report struct {
	Version string         `json:"version"`
	Time    time.Time      `json:"time"`
	Machine report.Machine `json:"machine"`
	Events  int            `json:"events"` // without resends
	Sides   []Side         `json:"sides"`
	Scaled  []Side         `json:"scaled,omitempty"` // with more rows
}

// Side is one binary with its schema, or a later state of its tables.
type Side struct {
	Name       string   `json:"name"`
	Sent       int      `json:"sent,omitempty"`            // events, resends included; 0: as the side before
	Load       float64  `json:"load_seconds"`              // until all rows were in this state
	Rollups    float64  `json:"rollups_seconds,omitempty"` // to compute all rollups
	Rows       int64    `json:"rows"`                      // including resends not yet merged
	Parts      int64    `json:"parts"`
	Partitions int64    `json:"partitions"`
	Bytes      int64    `json:"bytes_on_disk"`
	Results    []Result `json:"results"`
}

// Write prints the tables and writes JSON to a file. File - prints JSON only.
func (r *Report) Write(w io.Writer, file string) error {
	if file != "-" {
		r.print(w)
	}
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if text = append(text, '\n'); file == "-" {
		_, err = w.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

func (r *Report) print(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "bench ask: %d cores (%s), %d MiB, %s, %s %s, penstock %s\n", m.Cores, m.CPU, m.MemoryMiB, m.FileSystem,
		m.OS, m.Kernel, r.Version)
	for _, sides := range [][]Side{r.Sides, r.Scaled} {
		if len(sides) == 0 {
			continue
		}
		fmt.Fprintln(w)
		for _, s := range sides {
			fmt.Fprintf(w, "%s: %d events sent, after %.0f s %d rows in %d parts of %d partitions, %.1f bytes each; "+
				"rollups took %.0f s\n", s.Name, s.Sent, s.Load, s.Rows, s.Parts, s.Partitions,
				float64(s.Bytes)/float64(max(1, s.Rows)), s.Rollups)
		}
		table(w, sides)
		for _, s := range sides {
			for _, result := range s.Results {
				if why := result.Error + result.Differs; why != "" {
					fmt.Fprintf(w, "! %s, %s: %.400s\n", s.Name, result.Question, why)
				}
			}
		}
	}
}

// table prints a Markdown table with a line for each question and columns for each side.
func table(w io.Writer, sides []Side) {
	lines := [][]string{{"question"}, {"---"}}
	for _, s := range sides {
		for _, head := range []string{" ms", " CPU ms", " rows read", " MB", " equal"} {
			lines[0] = append(lines[0], s.Name+head)
			lines[1] = append(lines[1], "--:")
		}
	}
	lines[0], lines[1] = append(lines[0], "limit, ms"), append(lines[1], "--:")
	for i, first := range sides[0].Results {
		line := []string{first.Question}
		for _, s := range sides {
			line = append(line, cells(s.Results[i])...)
		}
		lines = append(lines, append(line, fmt.Sprintf("%.0f", first.Most)))
	}
	writeAligned(w, lines)
}

func writeAligned(w io.Writer, lines [][]string) {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	fmt.Fprintln(w)
	for n, line := range lines {
		for i, cell := range line {
			space := widths[i] - utf8.RuneCountInString(cell)
			switch {
			case n == 1: // separator line
				cell = strings.Repeat("-", space) + cell
			case i == 0:
				cell += strings.Repeat(" ", space)
			default:
				cell = strings.Repeat(" ", space) + cell
			}
			fmt.Fprintf(w, "| %s ", cell)
		}
		fmt.Fprintln(w, "|")
	}
}

func cells(r Result) []string {
	if r.Error != "" {
		return []string{"-", "-", "-", "-", "error"}
	}
	equal := "no"
	if r.Equal {
		equal = "yes"
	}
	return []string{milliseconds(r.Ms), milliseconds(r.CPU), thousands(r.Rows),
		fmt.Sprintf("%.1f", float64(r.Bytes)/1e6), equal}
}

func milliseconds(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1f", ms)
	}
	return thousands(uint64(ms + 0.5))
}

func thousands(n uint64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
