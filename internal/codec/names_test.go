package codec

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"

	"github.com/penstock/penstock/internal/pipeline"
)

// namedDocs have paths that differ only in case, and names that need escapes.
func namedDocs() []string {
	docs := make([]string, 40)
	for i := range docs {
		docs[i] = fmt.Sprintf(
			`{"level":%d,"Level":%d,"userName":"a%d","username":"b%d","URL":"https://example.com/%d","a^b":%d,"^":%t,`+
				`"position":{"x":%d.5,"X":%d.25},"Position":{"x":%d},"ключ":%d,"Ключ":%d,"straße":%d,"os:name":"linux","K":%d,"k":%d,"snake_case":%d}`,
			i, 100*i, i, i, i, i, i%2 == 0, i, i, i, i, -i, i, i, 2*i, i)
		if i%3 == 0 {
			docs[i] = fmt.Sprintf(`{"Level":"high %d","level":"low","URL":%d}`, i, i)
		}
	}
	return docs
}

// Layout 2 named columns by their plain paths, even if two differed only in case.
func TestLayout2IsRead(t *testing.T) {
	path := filepath.Join("testdata", "schema2-names.parquet")
	object, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	checkDocs(t, object, namedDocs())
}

func checkDocs(t *testing.T, object []byte, docs []string) {
	t.Helper()
	got, _, err := decode(object, pipeline.Parquet, noLimit)
	if err != nil || len(got) != len(docs) {
		t.Fatalf("%d events, want %d, %v", len(got), len(docs), err)
	}
	for i := range got {
		if want := canonical([]byte(docs[i])); canonical(got[i].Properties) != want {
			t.Errorf("sent %s\n got %s", docs[i], got[i].Properties)
		}
	}
}

// The current layout stores all values, and no two column names differ only in case.
func TestNamesDoNotDifferInCase(t *testing.T) {
	object := encode(t, pipeline.Parquet, docEvents(namedDocs()), 1000)
	checkDocs(t, object, namedDocs())
	file, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, c := range file.Root().Column(typedGroup).Columns() {
		for _, fold := range foldings {
			name := fold(c.Name())
			if got[name] && name != c.Name() {
				t.Errorf("two columns are %s if case is ignored", name)
			}
		}
		got[c.Name()] = true
	}
	want := []string{"level", "level:string", "^Level", "^Level:string", "user^Name", "username", "^U^R^L", "^U^R^L:int64",
		"a^^b", "^^", "position.x", "position.^X", "^Position.x", "ключ", "^Ключ", "stra^{df}e", "k", "^K", "snake_case"}
	slices.Sort(want)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Errorf("columns\n got %q\nwant %q", names, want)
	}
}

// foldings are the ways in which readers ignore case: ASCII only, lower case, upper case, and Unicode folding. The
// special cases are those of Java's toLowerCase and toUpperCase.
var foldings = []func(string) string{
	func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' {
				return r + 'a' - 'A'
			}
			return r
		}, s)
	},
	func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "İ", "i\u0307")) },
	func(s string) string {
		return strings.NewReplacer("ß", "SS", "ŉ", "ʼN", "ﬁ", "FI", "ﬀ", "FF", "ǰ", "J\u030c", "ΐ",
			"Ϊ\u0301").Replace(strings.ToUpper(s))
	},
	func(s string) string {
		return strings.Map(func(r rune) rune {
			least := r
			for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
				least = min(least, f)
			}
			return least
		}, s)
	},
}

// Every character has a unique name under every folding, and can be restored from it.
func TestColumnNameOfEveryCharacter(t *testing.T) {
	for i, fold := range foldings {
		paths := map[string]string{}
		add := func(path string) {
			name := columnName(path)
			if back, err := columnPath(name); err != nil || back != path {
				t.Errorf("%q is %q, which is %q, %v", path, name, back, err)
			}
			if other, there := paths[fold(name)]; there && other != path {
				t.Errorf("folding %d: %q and %q are both %q", i, other, path, fold(name))
			}
			paths[fold(name)] = path
		}
		for r := range rune(0x20000) { // beyond it, no letter has a case
			if utf8.ValidRune(r) {
				add(string(r))
			}
		}
		for _, path := range []string{"ss", "SS", "Ss", "fi", "FI", "ff", "i\u0307", "ʼN", "ʼn", "^A", "^a", "^^",
			"^{df}", "^{DF}", "^{", "a^", "ΑΣ", "ας", "ασ", "userName", "username", "UserName", "USERNAME"} {
			add(path)
		}
	}
}

func TestColumnName(t *testing.T) {
	for path, want := range map[string]string{"level": "level", "position.x": "position.x", "a_b-c d$e": "a_b-c d$e",
		"userName": "user^Name", "URL": "^U^R^L",
		"öl": "öl", "GRÖSSE": "^G^R^Ö^S^S^E", "straße": "stra^{df}e", "уровень": "уровень", "Уровень": "^Уровень",
		"レベル": "レベル", "a\nb": "a^{a}b", "x^2": "x^^2"} {
		if got := columnName(path); got != want {
			t.Errorf("%q is %q, want %q", path, got, want)
		}
	}
	for _, name := range []string{"^", "a^", "^{", "^{}", "^{zz}", "^{d800}", "^{110000}", "^{41", "^\xff"} {
		if path, err := columnPath(name); err == nil {
			t.Errorf("%q is taken for the name of %q", name, path)
		}
	}
}

func FuzzColumnName(f *testing.F) {
	f.Add("userName", "username")
	f.Add("^{df}", "ß")
	f.Fuzz(func(t *testing.T, a, b string) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) {
			return
		}
		name := columnName(a)
		if back, err := columnPath(name); err != nil || back != a {
			t.Errorf("%q is %q, which is %q, %v", a, name, back, err)
		}
		for _, fold := range foldings {
			if a != b && fold(name) == fold(columnName(b)) {
				t.Errorf("%q and %q are both %q", a, b, fold(name))
			}
		}
	})
}
