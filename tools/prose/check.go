package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// banned are phrases with the word to use instead. They are matched in text outside of code, whatever their case.
var banned = []struct {
	phrase *regexp.Regexp
	use    string
}{
	word(`(is|are) told`, `"is reported" or "is logged"`),
	word(`tells? (who|what|of|whether|how)`, `"reports", "says" or "returns"`),
	word(`who sends?`, `"clients that send"`),
	word(`as good as`, `"almost" or "equal to"`),
	word(`so many`, `a number, or "this many"`),
	word(`by (itself|themselves)`, `"automatically"`),
	word(`the same again`, `"retry the same request"`),
	word(`swallow(s|ed)? without a word`, `"silently drops"`),
	word(`mend(s|ed|ing)?`, `"fix"`),
	word(`of (its|their|your|our) own`, `"separate" or "dedicated"`),
	word(`that is one`, `the thing's name`),
	word(`hold(s)? \S+ against`, `"compare with"`),
	word(`dialects?`, `"protocol"`),
	word(`for ever`, `"forever"`),
	word(`dead letters? that (was|were) buried`, `"dead letter"`),
}

func word(pattern, use string) struct {
	phrase *regexp.Regexp
	use    string
} {
	return struct {
		phrase *regexp.Regexp
		use    string
	}{regexp.MustCompile(`(?i)\b` + pattern + `\b`), use}
}

// check returns what is wrong with pages, each with its place and what to do.
func check(pages []*page) []string {
	anchors := map[string]map[string]bool{}
	for _, p := range pages {
		anchors[filepath.Clean(p.name)] = p.anchors
	}
	var findings []string
	for _, p := range pages {
		if a := p.average(); a > maxAverage {
			findings = append(findings, fmt.Sprintf("%s: a sentence has %.1f words on average, want at most %d: split the "+
				"longest (-long 30 lists them)", p.name, a, maxAverage))
		}
		for _, b := range p.blocks {
			findings = append(findings, p.bannedIn(b)...)
		}
		for _, l := range p.links {
			if why := p.dead(l, anchors); why != "" {
				findings = append(findings, fmt.Sprintf("%s:%d: dead link %q: %s", p.name, l.line, l.target, why))
			}
		}
	}
	return findings
}

func (p *page) bannedIn(b block) []string {
	var findings []string
	for _, w := range banned {
		for _, found := range w.phrase.FindAllString(b.text, -1) {
			findings = append(findings, fmt.Sprintf("%s:%d: %q: use %s", p.name, b.line, found, w.use))
		}
	}
	return findings
}

// dead says why a link leads nowhere; addresses of other hosts are not asked.
func (p *page) dead(l link, anchors map[string]map[string]bool) string {
	if strings.Contains(l.target, "://") || strings.HasPrefix(l.target, "mailto:") {
		return ""
	}
	file, anchor, _ := strings.Cut(l.target, "#")
	path := filepath.Clean(p.name)
	if file != "" {
		path = filepath.Join(filepath.Dir(p.name), file)
	}
	if _, err := os.Stat(path); err != nil {
		return "there is no such file"
	}
	if anchor == "" || !strings.HasSuffix(path, ".md") {
		return ""
	}
	known, ok := anchors[path]
	if !ok {
		text, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		known = read(path, text).anchors
		anchors[path] = known
	}
	if !known[anchor] {
		return "the page has no such heading"
	}
	return ""
}
