package show

import (
	"bytes"
	"errors"
	"testing"
)

func TestTable(t *testing.T) {
	var out bytes.Buffer
	table := NewTable(&out, "NAME", ">ROWS", "KEY")
	table.Row("a\nb", "1", "k")
	table.Row("Größe", "1234", "")
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "NAME   ROWS  KEY\na b       1  k\nGröße  1234\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	if err := table.Flush(); err != nil || out.String() != want {
		t.Errorf("a second flush: %v\n%s", err, &out)
	}
	full := errors.New("disk full")
	if err := NewTable(failing{full}, "A").Flush(); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// Only a terminal shows styles, also through a buffer. What is printed cannot add its own.
func TestPrint(t *testing.T) {
	var out bytes.Buffer
	for _, tt := range []struct {
		colour bool
		want   string
	}{{true, "before \x1b[31m" + `red \x1b[0m` + "\x1b[0m"}, {false, `before red \x1b[0m`}} {
		out.Reset()
		b := NewBuffer(&Writer{To: &out, Colour: tt.colour})
		b.WriteString("before ")
		if err := errors.Join(Print(b, Red, "red \x1b[0m"), b.Flush()); err != nil || out.String() != tt.want {
			t.Errorf("colour %v: got %q, %v, want %q", tt.colour, &out, err, tt.want)
		}
	}
	out.Reset()
	b := NewBuffer(&out) // a file
	if err := errors.Join(Print(b, Red, "plain"), Print(&out, Yellow, "first "), b.Flush()); err != nil ||
		out.String() != "first plain" {
		t.Errorf("got %q, %v", &out, err)
	}
	full := errors.New("disk full")
	if err := Print(&Writer{To: failing{full}, Colour: true}, Red, "x"); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

func TestColourIsWanted(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        bool
	}{{"TERM", "xterm", true}, {"NO_COLOR", "", true}, {"NO_COLOR", "1", false}, {"TERM", "dumb", false}} {
		t.Run(tt.name+tt.value, func(t *testing.T) {
			t.Setenv("TERM", "xterm")
			t.Setenv("NO_COLOR", "")
			t.Setenv(tt.name, tt.value)
			if got := colour(); got != tt.want {
				t.Errorf("%s=%q: got %v", tt.name, tt.value, got)
			}
		})
	}
}
