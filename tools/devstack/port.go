package devstack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// host is the only address where servers listen.
const host = "127.0.0.1"

// portTries is how many free ports are tried if other programs take them before the server does.
const portTries = 5

// PortTakenError says that a server cannot start because another program uses its port.
type PortTakenError struct {
	Port int
	For  string // the port's purpose: "NATS", "MinIO console", "ClickHouse HTTP"
}

func (e *PortTakenError) Error() string {
	return fmt.Sprintf("port %d (%s) is taken by another program", e.Port, e.For)
}

// port is a TCP port on host and its purpose.
type port struct {
	number int
	use    string   // as in PortTakenError.For
	hold   *os.File // lock of a port that devstack chose, see reserve; nil: the caller chose it
}

// ports are all ports of one server.
type ports []port

// choose assigns ports: the wanted numbers, or free ones for 0.
func choose(wanted ...port) (ports, error) {
	chosen := make(ports, 0, len(wanted))
	for _, p := range wanted {
		if p.number == 0 {
			var err error
			if p.number, p.hold, err = freePort(); err != nil {
				return nil, fmt.Errorf("find a free port for %s: %w", p.use, err)
			}
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// free returns a *PortTakenError for the first port in use.
func (ps ports) free() error {
	for _, p := range ps {
		listener, err := net.Listen("tcp", address(p.number))
		if errors.Is(err, syscall.EADDRINUSE) {
			return &PortTakenError{Port: p.number, For: p.use}
		}
		if err != nil {
			return err
		}
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}

// untilFree calls start. It calls it again if another program took a port that devstack chose. A port chosen by the
// caller is tried only once.
func untilFree[S any](start func() (S, ports, error)) (S, error) {
	for tries := 1; ; tries++ {
		server, chosen, err := start()
		var taken *PortTakenError
		if !errors.As(err, &taken) || tries == portTries || !chosen.ours(taken.Port) {
			return server, err
		}
	}
}

// ours reports whether devstack chose the port.
func (ps ports) ours(number int) bool {
	for _, p := range ps {
		if p.number == number {
			return p.hold != nil
		}
	}
	return false
}

// freePort finds and reserves an unused port.
func freePort() (int, *os.File, error) {
	for {
		listener, err := net.Listen("tcp", address(0))
		if err != nil {
			return 0, nil, err
		}
		number := listener.Addr().(*net.TCPAddr).Port
		hold, err := reserve(number)
		if err := errors.Join(err, listener.Close()); err != nil {
			return 0, nil, err
		}
		if hold != nil {
			return number, hold, nil
		}
	}
}

// reserve keeps other users of this package from choosing the same port before the server listens, and while it
// restarts: `go test ./...` starts dozens of servers at once. It returns nil if somebody else has reserved the port.
// The reservation is a lock on an empty file. It lasts until the file is closed, at the latest at the end of this
// process.
func reserve(number int) (*os.File, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("penstock-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(number)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return file, nil
}

// address is the port on host in the form host:port.
func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
