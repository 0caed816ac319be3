package errcode

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

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

// Every code of the scanner is one here.
func TestScannerCodes(t *testing.T) {
	for _, name := range []string{jsonscan.InvalidJSON, jsonscan.NotAnObject, jsonscan.InvalidUTF8, jsonscan.LoneSurrogate,
		jsonscan.NulCharacter,
		jsonscan.NumberOutOfRange, jsonscan.DuplicateKey, jsonscan.TooDeep, jsonscan.TooManyKeys} {
		if code, ok := Named(name); !ok || code.String() != name {
			t.Errorf("%q is no code", name)
		}
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
` + "`penstock_receiver_rejected_total` and `penstock_receiver_refused_total`" + ` use the same names.

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
