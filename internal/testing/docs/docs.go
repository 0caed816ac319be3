// Package docs reads the code in documents, so that tests run what people copy.
package docs

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

// Block is a fenced block of a document.
type Block struct {
	Line     int    // of its first line of code, from 1
	Heading  string // the heading above it
	Language string // behind the fence: sh, console, sql, json; empty: none
	NotRun   string // why no test runs the commands; empty: one does
	Text     string
}

// notRun begins the mark behind the language of a fence whose commands cannot be run by a test.
const notRun = " not run: "

// Blocks returns the fenced blocks of a document in order.
func Blocks(t testing.TB, path string) []Block {
	t.Helper()
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []Block
	heading := ""
	root := goldmark.New().Parser().Parse(text.NewReader(source))
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			heading = string(n.Lines().Value(source))
		case *ast.FencedCodeBlock:
			code := n.Lines()
			if code.Len() > 0 {
				line := bytes.Count(source[:code.At(0).Start], []byte("\n")) + 1
				why := ""
				if n.Info != nil {
					_, why, _ = strings.Cut(string(n.Info.Value(source)), notRun)
				}
				blocks = append(blocks, Block{line, heading, string(n.Language(source)), why, string(code.Value(source))})
			}
		}
		return ast.WalkContinue, nil
	})
	return blocks
}

// Below returns the first block of a language below a heading. It fails the test if there is none.
func Below(t testing.TB, path, heading, language string) string {
	t.Helper()
	for _, b := range Blocks(t, path) {
		if b.Language == language && strings.EqualFold(b.Heading, heading) {
			return b.Text
		}
	}
	t.Fatalf("%s has no %s below %q", path, language, heading)
	return ""
}
