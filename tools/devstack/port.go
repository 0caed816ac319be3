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

// host is where every server listens, and nowhere else.
const host = "127.0.0.1"

// portTries is how many free ports are tried before giving up, when other programs take each before our server could.
const portTries = 5

// PortTakenError says that a server cannot start because another program listens on its port.
type PortTakenError struct {
	Port int
	For  string // what the port is for: "NATS", "MinIO console", "ClickHouse HTTP"
}

func (e *PortTakenError) Error() string {
	return fmt.Sprintf("port %d (%s) is taken by another program", e.Port, e.For)
}

// port is a TCP port on host, and what a server needs it for.
type port struct {
	number int
	use    string   // as in PortTakenError.For
	hold   *os.File // the lock of a port that we chose, see reserve; nil: the caller chose it
}

// ports are all of one server.
type ports []port

// choose gives each use its port: the wanted number, or a free one for 0.
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

// free returns a *PortTakenError for the first of the ports that somebody listens on.
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

// untilFree calls start, and again while one of the ports that start chooses was taken by somebody else just before the
// server could listen on it. A port that the caller chose is never tried twice.
func untilFree[S any](start func() (S, ports, error)) (S, error) {
	for tries := 1; ; tries++ {
		server, chosen, err := start()
		var taken *PortTakenError
		if !errors.As(err, &taken) || tries == portTries || !chosen.ours(taken.Port) {
			return server, err
		}
	}
}

// ours says whether we chose the port.
func (ps ports) ours(number int) bool {
	for _, p := range ps {
		if p.number == number {
			return p.hold != nil
		}
	}
	return false
}

// freePort finds a port that nobody listens on and reserves it.
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

// reserve keeps others who use this package from choosing the port too, between our look at it and our server's
// listening, and while our server is down for a restart: `go test ./...` starts dozens of servers at once. It returns
// nil when somebody else has reserved the port. The reservation is a lock on an empty file; it lasts until that is
// closed, at the latest by the end of our process.
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

// address is the port on host, as Go and the servers write it.
func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
