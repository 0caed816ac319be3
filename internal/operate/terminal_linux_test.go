package operate

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/show"
)

// terminal opens a pseudo terminal. Output to tty can be read from screen.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	var unlock, number int32
	for request, arg := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlock, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
			t.Fatal(errno)
		}
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return screen, tty
}

// A client's bytes reach the operator's terminal as text, never as control sequences. A file gets them unchanged.
func TestTerminalGetsNoCommands(t *testing.T) {
	screen, tty := terminal(t)
	sent := "{\"a\":\"\x1b]0;PWNED\x07\u009b\u202e\"}"
	d := &errorDetail{Raw: []byte(sent)}
	d.Message = "message \x1b[31m"
	if err := printError(show.Plain(tty), d); err != nil {
		t.Fatal(err)
	}
	log, err := config.Process{LogLevel: "info", LogFormat: "json"}.Logger(tty, nil)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("refused", "name", "\u009b\u202e")
	fmt.Fprintln(tty, "END")
	var got []byte
	for piece := make([]byte, 4096); !bytes.Contains(got, []byte("END")); {
		n, err := screen.Read(piece)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, piece[:n]...)
	}
	for _, bad := range []string{"\x1b", "\x07", "\u009b", "\u202e"} {
		if bytes.Contains(got, []byte(bad)) {
			t.Errorf("the terminal got %q in %q", bad, got)
		}
	}
	if !bytes.Contains(got, []byte(`{"a":"\x1b]0;PWNED\x07\u009b\u202e"}`)) {
		t.Errorf("got %q", got)
	}
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fmt.Fprint(show.Plain(file), sent)
	if text, err := os.ReadFile(file.Name()); err != nil || string(text) != sent {
		t.Errorf("a file got %q, %v", text, err)
	}
}
