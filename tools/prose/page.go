package main

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	east "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

// page is a document, as far as the checks need it.
type page struct {
	name      string
	blocks    []block
	sentences []sentence // of paragraphs and list items; cells and headings have phrases
	links     []link
	anchors   map[string]bool
}

// block is the text of a paragraph, item, cell or heading. Each code span is one word, code.
type block struct {
	line int
	text string
}

type sentence struct {
	line, words int
	text        string
}

type link struct {
	line   int
	target string
}

// code stands for a code span, which counts as one word.
const code = "`…`"

var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM),
	goldmark.WithParserOptions(parser.WithAutoHeadingID()))

// read parses a document.
func read(name string, source []byte) *page {
	p := &page{name: name, anchors: map[string]bool{}}
	root := markdown.Parser().Parse(text.NewReader(source))
	_ = ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			if id, ok := n.AttributeString("id"); ok {
				p.anchors[string(id.([]byte))] = true
			}
			p.blocks = append(p.blocks, block{lineOf(n, source), plain(n, source)})
		case *ast.Paragraph, *ast.TextBlock:
			b := block{lineOf(n, source), plain(n, source)}
			p.blocks = append(p.blocks, b)
			p.sentences = append(p.sentences, split(b)...)
		case *east.TableCell:
			p.blocks = append(p.blocks, block{lineOf(n, source), plain(n, source)})
		case *ast.Link:
			p.links = append(p.links, link{lineOf(n, source), string(n.Destination)})
		case *ast.Image:
			p.links = append(p.links, link{lineOf(n, source), string(n.Destination)})
		}
		return ast.WalkContinue, nil
	})
	return p
}

// lineOf is the line that a node begins in, from 1.
func lineOf(n ast.Node, source []byte) int {
	for ; n != nil; n = n.Parent() {
		if n.Type() == ast.TypeInline {
			continue
		}
		if lines := n.Lines(); lines != nil && lines.Len() > 0 {
			return bytes.Count(source[:lines.At(0).Start], []byte("\n")) + 1
		}
	}
	return 1
}

// plain is the text of a block without its markup.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.CodeSpan:
			if entering {
				b.WriteString(code)
			}
			return ast.WalkSkipChildren, nil
		case *ast.Text:
			if entering {
				b.Write(n.Segment.Value(source))
				if n.SoftLineBreak() || n.HardLineBreak() {
					b.WriteByte(' ')
				}
			}
		case *ast.AutoLink:
			if entering {
				b.WriteString(code)
			}
		}
		return ast.WalkContinue, nil
	})
	return strings.TrimSpace(b.String())
}

// sentenceEnd is a full stop, question or exclamation mark before a space and a capital letter, a digit or code.
var sentenceEnd = regexp.MustCompile("[.!?][)\"”]?\\s+")

// abbreviations end in a full stop that ends no sentence.
var abbreviations = []string{"e.g.", "i.e.", "etc.", "vs."}

// split finds the sentences of a block.
func split(b block) []sentence {
	var sentences []sentence
	rest := b.text
	for start := 0; ; {
		at := sentenceEnd.FindStringIndex(rest[start:])
		if at == nil {
			break
		}
		end := start + at[1]
		if abbreviated(rest[:start+at[0]+1]) || !begins(rest[end:]) {
			start = end
			continue
		}
		sentences = add(sentences, b.line, rest[:end])
		rest, start = rest[end:], 0
	}
	return add(sentences, b.line, rest)
}

func abbreviated(s string) bool {
	for _, a := range abbreviations {
		if strings.HasSuffix(s, a) {
			return true
		}
	}
	return false
}

// begins reports whether a sentence can begin with s.
func begins(s string) bool {
	for _, r := range s {
		return unicode.IsUpper(r) || unicode.IsDigit(r) || strings.ContainsRune("`\"“([*", r)
	}
	return false
}

func add(sentences []sentence, line int, s string) []sentence {
	s = strings.TrimSpace(s)
	if n := countWords(s); n > 0 {
		return append(sentences, sentence{line, n, s})
	}
	return sentences
}

// countWords counts words; punctuation that stands alone is none.
func countWords(s string) int {
	n := 0
	for w := range strings.FieldsSeq(s) {
		if strings.ContainsFunc(w, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '…' }) {
			n++
		}
	}
	return n
}

func (p *page) words() (total, longest int) {
	for _, s := range p.sentences {
		total += s.words
		longest = max(longest, s.words)
	}
	return total, longest
}

// average is how many words a sentence has.
func (p *page) average() float64 {
	total, _ := p.words()
	return float64(total) / float64(max(1, len(p.sentences)))
}
