package errcode

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/internal/jsonscan"
)

var update = flag.Bool("update", false, "write docs/reference/errors.md anew")

func TestTable(t *testing.T) {
	names := map[string]bool{}
	for i, row := range All() {
		if int(row.Code) != i+1 || row.Code.String() != row.Name || row.Code.Status() != row.Status {
			t.Errorf("row %d has code %d: %+v", i+1, row.Code, row)
		}
		if !regexp.MustCompile(`^[a-z][a-z0-9_]+$`).MatchString(row.Name) || names[row.Name] {
			t.Errorf("name %q is empty, a duplicate or not snake_case", row.Name)
		}
		names[row.Name] = true
		if got, ok := Named(row.Name); !ok || got != row.Code {
			t.Errorf("Named(%q): got %d, %v", row.Name, got, ok)
		}
		if row.Scope == 0 || !strings.HasSuffix(row.Do, ".") || http.StatusText(row.Status) == "" {
			t.Errorf("%s is incomplete: %+v", row.Name, row)
		}
		if outage := row.Status == http.StatusTooManyRequests || row.Status == http.StatusServiceUnavailable; outage &&
			(!row.Retry || row.Kept) {
			t.Errorf("%s: status %d asks for the request again, so it is retryable and not kept", row.Name, row.Status)
		}
		if row.Refund && !row.Retry {
			t.Errorf("%s gives back what is not to be sent again", row.Name)
		}
		if row.Scope&Event != 0 && (row.Status != http.StatusBadRequest || !row.Kept) {
			t.Errorf("%s: an event is rejected for good and kept: %+v", row.Name, row)
		}
	}
	if code, ok := Named("none"); ok {
		t.Errorf("Named(none): got %d", code)
	}
}

// An error of any kind has a code. Those of the scanner keep theirs.
func TestOf(t *testing.T) {
	for _, c := range []struct {
		err     error
		code    Code
		message string
	}{
		{MissingName.Errorf("no %q", "name"), MissingName, `no "name"`},
		{fmt.Errorf("event 7: %w", TooDeep.Errorf("deep")), TooDeep, "deep"},
		{errors.New("strange"), InvalidEvent, "strange"},
		{scanned(`{"a":1,"a":2}`), DuplicateKey, ""},
		{scanned(`{"a":1e400}`), NumberOutOfRange, ""},
		{scanned(`{"a":[[[1]]]}`), TooDeep, ""},
		{scanned(`{"a\u0000":1}`), NulCharacter, ""},
		{scanned("{\"a\":\"\xff\"}"), InvalidUTF8, ""},
		{scanned(`{"a":}`), InvalidJSON, ""},
		{scanned(`7`), NotAnObject, ""},
		{fmt.Errorf("wrapped: %w", scanned(`7`)), NotAnObject, ""},
		{&jsonscan.Error{Code: jsonscan.TooManyKeys, Message: "too many"}, TooManyKeys, ""},
		{&jsonscan.Error{Code: "a code of a later scanner", Message: "new"}, InvalidEvent, ""},
	} {
		code, message := Of(c.err)
		if code != c.code || message == "" || c.message != "" && message != c.message {
			t.Errorf("%v: got %s and %q, want %s and %q", c.err, code, message, c.code, c.message)
		}
	}
}

// scanned returns the receiver's scanner's error about a text.
func scanned(text string) error {
	_, _, err := (&jsonscan.Scanner{MaxDepth: 3, AllowLoneSurrogates: true}).Object([]byte(text))
	return err
}

// Messages quote what clients have sent, and go into answers and tables, which are UTF-8.
func TestMessagesAreUTF8(t *testing.T) {
	err := UnknownType.Errorf("type %s at %d%%", "a\xff\xfeb", 7)
	if got, want := err.Error(), "type a\uFFFDb at 7%"; got != want || err.Status() != http.StatusBadRequest {
		t.Errorf("got %q and status %d, want %q and 400", got, err.Status(), want)
	}
}

// A name that is no code's has no code, although the table's first row has an empty name.
func TestNamed(t *testing.T) {
	for _, name := range []string{"", "None", "missing-name", "MISSING_NAME", "missing_name "} {
		if code, ok := Named(name); ok || code != None {
			t.Errorf("%q: got %s, %v, want none", name, code, ok)
		}
	}
	if None.String() != "" || None.Retryable() || None.Kept() || None.Refunds() || None.Status() != 0 {
		t.Error("no code says something")
	}
}

// What clients, limits and operators rely on. A change here changes what clients do with their events.
func TestWhatFollowsFromACode(t *testing.T) {
	for what, c := range map[string]struct {
		is   func(Code) bool
		want string
	}{
		"sent again": {Code.Retryable, "timeout rate_limited quota_exceeded keyless_limit too_many_keyless busy " +
			"unavailable clock_wrong not_stored_yet cancelled"},
		"given back to the limits": {Code.Refunds, "rate_limited quota_exceeded keyless_limit too_many_keyless busy " +
			"unavailable clock_wrong"},
		"not kept": {func(c Code) bool { return !c.Kept() }, "not_found method_not_allowed rate_limited quota_exceeded " +
			"keyless_limit too_many_keyless busy unavailable clock_wrong not_stored_yet cancelled"},
		"a wrong key": {func(c Code) bool { return c.Status() == http.StatusUnauthorized },
			"missing_key unknown_key expired_key no_secret missing_signature wrong_signature"},
		"sent in smaller requests": {func(c Code) bool { return c.Status() == http.StatusRequestEntityTooLarge },
			"body_too_large decoded_too_large too_many_events too_many_files too_much"},
	} {
		var got []string
		for _, row := range All() {
			if c.is(row.Code) {
				got = append(got, row.Name)
			}
		}
		if diff := cmp.Diff(strings.Fields(c.want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	if rows := All(); len(rows) > 0 {
		rows[0].Status = 999 // a copy
		if got := rows[0].Code.Status(); got == 999 {
			t.Error("the table can be changed from outside")
		}
	}
}

// Every code is one that the receiver, a protocol or the scanner rejects with. Others would promise in vain.
func TestNoCodeIsDead(t *testing.T) {
	used := map[string]bool{"InvalidEvent": true} // see Of
	for _, name := range []string{jsonscan.InvalidJSON, jsonscan.NotAnObject, jsonscan.InvalidUTF8, jsonscan.NulCharacter,
		jsonscan.NumberOutOfRange, jsonscan.DuplicateKey, jsonscan.TooDeep, jsonscan.TooManyKeys} {
		if _, ok := Named(name); !ok {
			t.Errorf("the scanner's code %q is no code here", name)
		}
		used[name] = true
	}
	use := regexp.MustCompile(`\berrcode\.([A-Z]\w+)`)
	if err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range use.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = true
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i, name := range constants(t) {
		if code := Code(i); code != None && !used[name] && !used[code.String()] {
			t.Errorf("nothing is rejected with %s, %q", name, code)
		}
	}
}

// constants are the names of the codes in Go, in their order.
func constants(t *testing.T) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "errcode.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		block, is := d.(*ast.GenDecl)
		if !is || block.Tok != token.CONST || block.Specs[0].(*ast.ValueSpec).Names[0].Name != "None" {
			continue
		}
		for _, s := range block.Specs {
			names = append(names, s.(*ast.ValueSpec).Names[0].Name)
		}
	}
	if got, want := len(names), len(All())+2; got != want { // None and count
		t.Fatalf("%d constants, want %d", got, want)
	}
	return names[:len(names)-1]
}

// Examples in the documentation show codes that exist.
func TestCodesInDocs(t *testing.T) {
	show := regexp.MustCompile(`"(?:code|error_code)": ?"([a-z0-9_]+)"|code ?= ?'([a-z0-9_]+)'`)
	found := 0
	for _, pattern := range []string{"../../README.md", "../../docs/*.md", "../../docs/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range show.FindAllStringSubmatch(string(text), -1) {
				found++
				if _, ok := Named(m[1] + m[2]); !ok {
					t.Errorf("%s shows the code %q, which does not exist", path, m[1]+m[2])
				}
			}
		}
	}
	if found < 3 {
		t.Errorf("found %d examples: do the documents write them in another way now?", found)
	}
}

// docs/reference/errors.md is made of the table: go test ./receiver/errcode -update.
func TestReference(t *testing.T) {
	const path = "../../docs/reference/errors.md"
	want := reference()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from the table: run go test ./receiver/errcode -update\ngot\n%s\nwant\n%s", path, got, want)
	}
}

func reference() []byte {
	var b bytes.Buffer
	b.WriteString(`# Error codes

<!-- Written by go test ./receiver/errcode -update. Do not edit. -->

The receiver rejects events and requests with these codes. Answers, the table ` + "`errors`" + ` and the metrics
` + "`penstock_receiver_rejected_events_total` and `penstock_receiver_rejected_requests_total`" + ` use the same names.

- A code that rejects an **event** leaves the other events of the request alone. The answer lists it by index.
- A code that rejects a **request** accepts none of its events. The status below is the answer's in Penstock's own API;
  docs/guides/sdks.md says what other protocols answer.
- **Send again**: the same request can succeed later. Wait for ` + "`Retry-After`" + ` if the answer has it.
- **Kept**: the raw payload is stored as a failure record and can be redriven. If not, the client still has it.

`)
	for _, part := range []struct {
		title string
		is    func(Row) bool
	}{
		{"Events", func(r Row) bool { return r.Scope&Event != 0 }},
		{"Requests", func(r Row) bool { return r.Scope == Request && !r.Retry }},
		{"Requests to send again", func(r Row) bool { return r.Scope == Request && r.Retry }},
	} {
		rows := slices.DeleteFunc(All(), func(r Row) bool { return !part.is(r) })
		fmt.Fprintf(&b, "## %s\n\n| code | status | send again | kept | what to do |\n|---|---|---|---|---|\n", part.title)
		for _, r := range rows {
			fmt.Fprintf(&b, "| `%s` | %d | %s | %s | %s |\n", r.Name, r.Status, yes(r.Retry), yes(r.Kept), r.Do)
		}
		b.WriteByte('\n')
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
