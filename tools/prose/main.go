// Command prose checks the language of README.md, CONTRIBUTING.md, SECURITY.md and docs/: the length of sentences,
// words to avoid, and links.
//
//	go run ./tools/prose [-long N] [-sentences N] [FILE ...]
//
// It prints each finding with its place, then a table of figures. The exit status is 1 if there is a finding.
package main

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// maxAverage is the most words that a sentence of a file may have on average.
const maxAverage = 18

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("prose", flag.ContinueOnError)
	flags.SetOutput(stderr)
	long := flags.Int("long", 0, "print the sentences with more words than this; 0: none")
	sample := flags.Int("sentences", 0, "print this many sentences, chosen at random")
	if flags.Parse(args) != nil {
		return 2
	}
	files := flags.Args()
	if len(files) == 0 {
		var err error
		if files, err = documents("."); err != nil {
			fmt.Fprintln(stderr, "prose:", err)
			return 1
		}
	}
	pages := make([]*page, len(files))
	for i, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			fmt.Fprintln(stderr, "prose:", err)
			return 1
		}
		pages[i] = read(name, text)
	}
	findings := check(pages)
	for _, f := range findings {
		fmt.Fprintln(stdout, f)
	}
	printSentences(stdout, pages, *long, *sample)
	printFigures(stdout, pages)
	if len(findings) > 0 {
		fmt.Fprintf(stderr, "prose: %d findings\n", len(findings))
		return 1
	}
	return 0
}

// documents are the files that people read.
func documents(root string) ([]string, error) {
	var files []string
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "DESIGN.md"} {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			files = append(files, filepath.Join(root, name))
		}
	}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

func printSentences(w io.Writer, pages []*page, long, sample int) {
	var all []sentence
	for _, p := range pages {
		for _, s := range p.sentences {
			if long > 0 && s.words > long {
				fmt.Fprintf(w, "%s:%d: %d words: %s\n", p.name, s.line, s.words, s.text)
			}
			s.text = fmt.Sprintf("%s:%d: %s", p.name, s.line, s.text)
			all = append(all, s)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) // #nosec G404 -- a sample for readers
	for _, s := range all[:min(sample, len(all))] {
		fmt.Fprintln(w, s.text)
	}
}

func printFigures(w io.Writer, pages []*page) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "SENTENCES\tWORDS\tA SENTENCE\tLONGEST\t\t")
	var total page
	for _, p := range pages {
		printFigure(table, p, p.name)
		total.sentences = append(total.sentences, p.sentences...)
	}
	printFigure(table, &total, "all")
	table.Flush()
}

func printFigure(w io.Writer, p *page, name string) {
	words, longest := p.words()
	fmt.Fprintf(w, "%d\t%d\t%.1f\t%d\t \t%s\n", len(p.sentences), words, p.average(), longest, name)
}
