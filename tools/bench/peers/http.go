package peers

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/traffic"
)

// httpServer is the first argument of the serving process. It is a separate process, as directClient is.
const httpServer = "http-server"

// httpConns is the number of connections that send concurrently. bodyPool is the size of the bodies that they send
// repeatedly, in bytes.
const (
	httpConns = 64
	bodyPool  = 16 << 20
)

// maxBody is the servers' limit of a body, in bytes. It is more than the clients send; Penstock's default is 100 MB.
const maxBody = 128 << 20

// servers are HTTP servers with a handler that reads the body and gives a receiver's answer: the least cost of
// receiving. "streamed" is fasthttp with a handler that reads the body as a stream, as it must to accept large ones
// without buffering them.
var servers = map[string]func(l net.Listener, answer []byte) error{
	"net/http": func(l net.Listener, answer []byte) error {
		// #nosec G114 -- what receiving costs at least, on loopback
		return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Write(answer)
		}))
	},
	"fasthttp": func(l net.Listener, answer []byte) error {
		s := &fasthttp.Server{MaxRequestBodySize: maxBody, Handler: func(c *fasthttp.RequestCtx) {
			c.PostBody()
			c.Write(answer)
		}}
		return s.Serve(l)
	},
	"fasthttp, streamed": func(l net.Listener, answer []byte) error {
		s := &fasthttp.Server{MaxRequestBodySize: maxBody, StreamRequestBody: true, Handler: func(c *fasthttp.RequestCtx) {
			io.Copy(io.Discard, c.RequestBodyStream())
			c.Write(answer)
		}}
		return s.Serve(l)
	},
}

// withUs kills a child process when this one is killed.
var withUs = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

// serve measures a server that accepts POSTs with that many events and discards them.
func (b *bench) serve(ctx context.Context, name string, events int) (f figures, err error) {
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, self, command, httpServer, // #nosec G204 -- ourselves
		"-server", name, "-events", fmt.Sprint(events))
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, withUs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return f, err
	}
	if err := cmd.Start(); err != nil {
		return f, err
	}
	defer cmd.Wait()
	defer stop()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return f, fmt.Errorf("%s does not listen: %w", name, err)
	}
	addr = strings.TrimSpace(addr)

	clients := load.Clients{Connections: httpConns, Events: max(b.events/events, 1) * events,
		Dial: func(ctx context.Context) (load.Poster, error) { return load.Dial(ctx, addr, "none") }}
	g := traffic.New("http", uint64(time.Now().UnixNano()))
	for size := 0; size < bodyPool; size += clients.Bodies[len(clients.Bodies)-1].Len() {
		clients.Bodies = append(clients.Bodies, traffic.NewBody(g, events))
	}
	proc := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	before, err := processCPU(proc)
	if err != nil {
		return f, err
	}
	sent, err := clients.Run(ctx, new(load.Counts))
	if err != nil {
		return f, err
	}
	if sent.Failed() > 0 {
		return f, fmt.Errorf("%d requests failed, the first: %w", sent.Failed(), sent.FirstFailure)
	}
	after, err := processCPU(proc)
	if err != nil {
		return f, err
	}
	cpu := after - before
	f.Events, f.Seconds, f.PeerCPU = int(sent.Accepted), sent.Elapsed.Seconds(), &cpu
	f.PeerRSS, err = peakRSS(proc)
	return f, err
}

// processCPU is a process's user and system time, in seconds.
func processCPU(proc string) (float64, error) {
	text, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return 0, err
	}
	_, seconds, err := parseStat(string(text))
	return seconds, err
}

// runHTTPServer is the server's process. It prints its address, and serves until it is killed.
func runHTTPServer(args []string) error {
	fs := flag.NewFlagSet(httpServer, flag.ContinueOnError)
	name := fs.String("server", "", "")
	events := fs.Int("events", 1, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	serve := servers[*name]
	if serve == nil {
		return fmt.Errorf("there is no server %q", *name)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	// Same length as a receiver's answer.
	return serve(l, fmt.Appendf(nil, `{"accepted":%d,"rejected":0,"request_id":"%036d"}`+"\n", *events, 0))
}
