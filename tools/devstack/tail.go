package devstack

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// How much of a program's output an error shows: enough to see the cause, little enough to read.
const (
	tailLines     = 20
	tailLineBytes = 400   // longer lines are cut: ClickHouse can print its whole grammar in one
	tailBytes     = 65536 // bytes read from a log's end
)

// tail keeps the last lines written to it, and counts lines. One goroutine writes, another reads.
type tail struct {
	mu      sync.Mutex
	lines   []string // at most tailLines, each at most tailLineBytes
	partial []byte   // the unfinished line, at most tailLineBytes
	count   int      // finished lines for which counts is true
	counts  func(line string) bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	written := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		piece := p
		if end >= 0 {
			piece = p[:end]
		}
		t.partial = append(t.partial, piece[:min(len(piece), tailLineBytes-len(t.partial))]...)
		if end < 0 {
			return written, nil
		}
		t.endLine()
		p = p[end+1:]
	}
}

func (t *tail) endLine() {
	line := string(t.partial)
	t.partial = t.partial[:0]
	if t.counts != nil && t.counts(line) {
		t.count++
	}
	if len(t.lines) == tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
	t.lines = append(t.lines, line)
}

func (t *tail) counted() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	if len(t.partial) > 0 {
		lines = append(lines[:len(lines):len(lines)], string(t.partial))
	}
	return strings.Join(lines, "\n")
}

// tailOf returns a file's last lines from offset on. Every run appends to the log, and an error is about one run.
func tailOf(path string, offset int64) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from := max(offset, size-tailBytes)
	text, err := io.ReadAll(io.NewSectionReader(file, from, size-from))
	if err != nil {
		return ""
	}
	lines := slices.DeleteFunc(strings.Split(strings.TrimRight(string(text), "\n"), "\n"), isStackFrame)
	lines = lines[max(0, len(lines)-tailLines):]
	for i, line := range lines {
		if len(line) > tailLineBytes {
			lines[i] = cut(line, tailLineBytes) + " …"
		}
	}
	return strings.Join(lines, "\n")
}

// A stack frame of ClickHouse: "3. ? @ 0x000000000daafa92", in a crash behind "… <Fatal> ClientBase: ".
var stackFrame = regexp.MustCompile(`(^|: )[0-9]+\. .* @ 0x`)

// isStackFrame reports whether the line is a stack frame. Twenty of them would leave no space for the error.
func isStackFrame(line string) bool { return stackFrame.MatchString(line) }

// cut returns at most the first n bytes of s, without splitting a character.
func cut(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
