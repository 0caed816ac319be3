package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var (
	words    = regexp.MustCompile(`[0-9A-Za-z_.:%/+=…-]+`)
	digit    = regexp.MustCompile(`[0-9]`)
	longWord = regexp.MustCompile(`[0-9A-Za-z_.:%/+=…-]{16,}`)
	cutWord  = regexp.MustCompile(`[0-9A-Za-z_.:%/+=-]{6,}…[0-9A-Za-z_.:%/+=-]*`)
	sinceDay = regexp.MustCompile(`--since [0-9]{4}-[0-9]{2}-[0-9]{2}`)
	untilDay = regexp.MustCompile(`--until [0-9]{4}-[0-9]{2}-[0-9]{2}`)
	moment   = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T`)
	spaces   = regexp.MustCompile(`\s+`)
	plural   = regexp.MustCompile(`^([a-z]+?)s?$`)
)

// compareShape fails unless each line of the page matches a line of the output, in the same order. Words with a digit
// match any such word, and … matches any text. Ids and keys of the page are bound to the words in their place, and must
// match these later.
func (r *reader) compareShape(want, got string) error {
	lines := strings.Split(got, "\n")
	for line := range strings.SplitSeq(want, "\n") {
		if line = strings.TrimSpace(line); line == "" || line == "…" {
			continue
		}
		pattern, long := r.pattern(line)
		var found []string
		for found == nil {
			if len(lines) == 0 {
				return fmt.Errorf("no line as\n%s\n(%s) in\n%s", line, pattern, got)
			}
			found = pattern.FindStringSubmatch(strings.TrimSpace(lines[0]))
			lines = lines[1:]
		}
		for i, w := range long {
			r.bound[w] = found[i+1]
		}
	}
	return nil
}

// pattern returns a pattern for lines of the same shape. Its groups are the long words that are not bound yet.
func (r *reader) pattern(line string) (pattern *regexp.Regexp, long []string) {
	var b strings.Builder
	counted := false // the word before is a number
	rest := line
	plain := func(text string) {
		b.WriteString(spaces.ReplaceAllString(regexp.QuoteMeta(text), `\s+`))
	}
	for _, at := range words.FindAllStringIndex(line, -1) {
		between := line[len(line)-len(rest) : at[0]]
		plain(between)
		w := line[at[0]:at[1]]
		rest = line[at[1]:]
		value, bound := r.lookUp(w)
		isNumber := digit.MatchString(w)
		isLong := isNumber && longWord.MatchString(w) && !strings.Contains(w, "…") && !moment.MatchString(w)
		switch {
		case bound:
			b.WriteString(regexp.QuoteMeta(value))
		case isLong:
			b.WriteString(`([^\s"]+)`)
			long = append(long, w)
		case strings.Contains(w, "…"):
			b.WriteString(`.*`)
		case isNumber || w == "-":
			b.WriteString(`[^\s",}]+`)
		case w == "B":
			b.WriteString(`(?:[KMG]i)?B`)
		case counted && between == " " && plural.MatchString(w):
			b.WriteString(plural.FindStringSubmatch(w)[1] + "s?")
		default:
			b.WriteString(regexp.QuoteMeta(w))
		}
		counted = isNumber
	}
	plain(rest)
	return regexp.MustCompile("^" + b.String()), long
}

// lookUp returns this run's value of a long word on the page, which may be shortened by ….
func (r *reader) lookUp(w string) (string, bool) {
	if value, ok := r.bound[w]; ok {
		return value, true
	}
	before, after, cut := strings.Cut(w, "…")
	if !cut || len(before) < 6 {
		return "", false
	}
	for of, value := range r.bound {
		if strings.HasPrefix(of, before) && strings.HasSuffix(of, after) {
			return value, true
		}
	}
	return "", false
}

func TestShape(t *testing.T) {
	r := &reader{t: t, bound: map[string]string{}}
	const page = "STATE  ROWS  KEY\nloaded  500  events/dt=2026-11-26/a-1795654629173497.parquet\n…\n2 objects"
	for _, tt := range []struct {
		got  string
		fits bool
	}{
		{"STATE   ROWS  KEY\nloaded     7  events/dt=2027-01-01/b-1.parquet\n1 object\n", true},
		{"STATE   ROWS  KEY\nloaded     7  events/dt=2027-01-01/other.parquet\n1 object\n", false}, // the key is bound
		{"STATE   ROWS  KEY\nmore\nloaded     7  events/dt=2027-01-01/b-1.parquet\nmore\n5 objects\n", true},
		{"STATE   BYTES  KEY\nloaded     7  events/dt=2027-01-01/b-1.parquet\n1 object\n", false},
		{"STATE   ROWS  KEY\nloaded     7  events/dt=2027-01-01/b-1.parquet\n", false},
		{"1 object\nSTATE   ROWS  KEY\nloaded     7  events/dt=2027-01-01/b-1.parquet\n", false},
		{"STATE   ROWS  KEY\ndead     7  events/dt=2027-01-01/b-1.parquet\n1 object\n", false},
	} {
		if err := r.compareShape(page, tt.got); (err == nil) != tt.fits {
			t.Errorf("fits %v, want %v:\n%s\n%v", err == nil, tt.fits, tt.got, err)
		}
	}
	if got := r.adapt("penstock objects show events/dt=2026-11-26/a-179565….parquet --since 24h"); got !=
		"penstock objects show events/dt=2027-01-01/b-1.parquet --since 24h" {
		t.Error(got)
	}
}
