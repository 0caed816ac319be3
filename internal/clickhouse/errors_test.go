package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/retry"
)

func TestClass(t *testing.T) {
	exception := func(code int32) error {
		return fmt.Errorf("insert: %w", &clickhouse.Exception{Code: code})
	}
	for _, tt := range []struct {
		name          string
		err           error
		query, insert retry.Class
		text          bool // worth a retry as text after an insert in columns
	}{
		{"a row that does not fit", exception(53), retry.Permanent, retry.Permanent, true},
		{"a constraint", exception(469), retry.Permanent, retry.Permanent, true},
		{"memory", exception(memoryLimit), retry.Outage, retry.Outage, false},
		{"a missing table", exception(60), retry.Outage, retry.Outage, false},
		{"no open files left", exception(76), retry.Outage, retry.Unknown, false},
		{"an unknown code", exception(12345), retry.Outage, retry.Unknown, true},
		{"the network", errors.New("connection reset"), retry.Outage, retry.Outage, false},
		{"the end of ours", context.Canceled, retry.Unknown, retry.Unknown, true},
		{"success", nil, retry.Unknown, retry.Unknown, true},
	} {
		if got := retry.ClassOf(class(tt.err)); got != tt.query {
			t.Errorf("%s, of a query: got %s, want %s", tt.name, got, tt.query)
		}
		got := classInsert(tt.err)
		if retry.ClassOf(got) != tt.insert || !errors.Is(got, tt.err) {
			t.Errorf("%s, of an insert: got %s %v, want %s", tt.name, retry.ClassOf(got), got, tt.insert)
		}
		if got := textMayHelp(got); got != tt.text {
			t.Errorf("%s: text may help: %v, want %v", tt.name, got, tt.text)
		}
		if code, said := codeOf(tt.err); said && retry.CodeOf(got) != int(code) {
			t.Errorf("%s: code %d, want %d", tt.name, retry.CodeOf(got), code)
		}
	}
}

// No code has two meanings. Otherwise an insert would be retried forever, or an object blamed.
func TestCodesAreOneThing(t *testing.T) {
	for code, c := range codes {
		for _, m := range []meaning{dataFault | outage, dataFault | serverFiles, fileContent | unreachable,
			fileContent | fileOutage, unreachable | fileOutage} {
			if c.meaning&m == m {
				t.Errorf("%d %s means %b, of which only one of %b can be", code, c.name, c.meaning, m)
			}
		}
	}
}

// The list has the server's names.
func TestCodesHaveTheirNames(t *testing.T) {
	db, _, _ := open(t)
	for code, c := range codes {
		if got := query[string](t, db, fmt.Sprintf("SELECT toString(errorCodeToName(%d))", code)); got != c.name {
			t.Errorf("%d is %s, want %s", code, c.name, got)
		}
	}
}

func TestFileSays(t *testing.T) {
	for _, tt := range []struct {
		code int32
		text string
		m    meaning
		want bool
	}{
		{499, "", unreachable, true}, {499, "", fileContent, false}, {117, "", fileContent, true},
		{202, "", fileOutage, true},
		{cannotExtractStructure, "wrapped: Code: 499. DB::Exception", unreachable, true},
		{cannotExtractStructure, "wrapped: Code: 4999. DB::Exception", unreachable, false},
		{cannotExtractStructure, "", fileContent, false}, {12345, "Code: 499.", unreachable, false},
	} {
		if got := fileSays(tt.m, tt.code, tt.text); got != tt.want {
			t.Errorf("code %d, text %q: meaning %b: got %v, want %v", tt.code, tt.text, tt.m, got, tt.want)
		}
	}
}
