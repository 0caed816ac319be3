// Package dev runs a whole stack on this machine: servers, receiver and loader, each a process.
package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/tools/devstack"
)

// Options are those of a dev stack: the flags of `penstock dev`.
type Options struct {
	Data     string        // folder of all data
	Config   string        // file to begin with; empty: the defaults
	PortBase int           // of the receiver, and of the others by their distance to it; 0: see portsFrom
	Roll     time.Duration // age at which a batch becomes an object
	Format   string        // of objects
	Demo     int           // events a second that are sent; 0: none
	Events   int           // number of events that are sent; 0: none, or with Demo no end
	Exit     bool          // end when they are rows
	JSON     bool          // the summary as JSON
	Out, Err io.Writer
}

// Ports are the ports of a dev stack, in the order in which --port-base counts.
type Ports struct{ receiver, admin, minio, console, nats, tcp, http, otlpGRPC int }

func portsFrom(base int) Ports {
	if base == 0 {
		return Ports{8080, 8081, 9100, 9101, 4222, 9000, 8123, 4317}
	}
	return Ports{base, base + 1, base + 2, base + 3, base + 4, base + 5, base + 6, base + 7}
}

// State is DATA/dev.json: what other programs need to know about a running stack. The file exists only while the stack
// runs.
type State struct {
	Receiver   string         `json:"receiver"`
	OTLPGRPC   string         `json:"otlp_grpc"`
	Admin      string         `json:"admin"`
	LoadAdmin  string         `json:"load_admin"`
	S3         string         `json:"s3"`
	Console    string         `json:"console"`
	NATS       string         `json:"nats"`
	ClickHouse string         `json:"clickhouse"`
	HTTP       string         `json:"clickhouse_http,omitempty"`
	User       string         `json:"clickhouse_user"`
	Password   string         `json:"clickhouse_password"`
	Key        string         `json:"key"`
	Config     string         `json:"config"`
	Pids       map[string]int `json:"pids"`
}

// Check rejects flags that do not go together.
func (o Options) Check() error {
	if _, err := pipeline.ParseFormat(o.Format); err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	switch {
	case o.Events < 0 || o.Demo < 0:
		return errors.New("--events and --demo take a number of 1 or more")
	case o.Exit && o.Events == 0:
		return errors.New("--exit goes with --events: it ends the stack when they are rows")
	case o.JSON && o.Events == 0:
		return errors.New("--json goes with --events: it prints their summary")
	}
	if o.Roll < 10*time.Millisecond {
		return fmt.Errorf("--roll %s: at least 10ms", o.Roll)
	}
	if o.PortBase != 0 && (o.PortBase < 1 || o.PortBase > 65535-7) {
		return fmt.Errorf("--port-base %d: between 1 and %d", o.PortBase, 65535-7)
	}
	return nil
}

// stack is a dev stack that runs.
type stack struct {
	Servers
	opts  Options
	cfg   config.Config
	state State
}

// Run runs a stack until ctx ends, or, with Events and Exit, until its events are rows.
func Run(ctx context.Context, o Options) (err error) {
	began := time.Now()
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return err
	}
	o.Data = data
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	unlock, err := lockData(data)
	if err != nil {
		return err
	}
	defer unlock()
	st := &stack{opts: o}
	defer func() {
		st.Stop(time.Duration(st.cfg.Process.Drain) + 5*time.Second)
		os.Remove(filepath.Join(data, "dev.json"))
	}()
	if err := st.start(ctx); err != nil {
		if taken, ok := errors.AsType[*devstack.PortTakenError](err); ok {
			return fmt.Errorf("port %d (%s) is taken by another program: end that, or choose other ports with --port-base",
				taken.Port, taken.For)
		}
		if ctx.Err() != nil {
			return errors.New("stopped while starting")
		}
		return err
	}
	if !o.JSON {
		st.welcome(time.Since(began))
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, p := range st.Processes {
		go func() {
			select {
			case <-p.Done():
				// At once, because stopping the others may take a while.
				fmt.Fprintf(o.Err, "\n%v\nstopping the others\n", p.Err())
				cancel(fmt.Errorf("%s ended: see above", p.Name))
			case <-work.Done():
			}
		}()
	}
	switch {
	case o.Events > 0:
		err = st.events(work)
	case o.Demo > 0:
		err = st.demo(work)
	}
	if err == nil && !o.Exit {
		<-work.Done()
	}
	if cause := context.Cause(work); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause // a child died: that explains whatever else went wrong
	}
	if ctx.Err() != nil {
		fmt.Fprintln(o.Err, "stopping")
		return nil
	}
	return err
}

// lockData prevents a second stack in the folder.
func lockData(data string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(data, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another penstock dev uses %s: end it, or choose another folder with --data", data)
	}
	return func() { f.Close() }, nil
}

// start starts everything. After an error, Stop ends what runs.
func (st *stack) start(ctx context.Context) error {
	o, ports := st.opts, portsFrom(st.opts.PortBase)
	var err error
	if st.cfg, err = config.Load(o.Config, os.Environ()); err != nil {
		return err
	}
	ownClickHouse := slices.Equal(st.cfg.ClickHouse.Addresses, config.Default().ClickHouse.Addresses)
	for _, p := range []devstack.PortTakenError{{Port: ports.receiver, For: "receiver"}, {Port: ports.admin, For: "admin"},
		{Port: ports.otlpGRPC, For: "OTLP over gRPC"}} {
		if l, err := net.Listen("tcp", Loopback(p.Port)); err != nil {
			return &p
		} else {
			l.Close()
		}
	}
	have, err := FetchTools(ctx, st.opts.Err)
	if err != nil {
		return err
	}
	passwords, err := readSecrets(o.Data)
	if err != nil {
		return err
	}
	// Notifications are kept on disk while NATS is away; MinIO then sends each within 3 s.
	servers := ServerOptions{Data: o.Data, Ports: ports, Queue: true, Tables: ownClickHouse,
		queueDir: filepath.Join(o.Data, "minio", "notifications"), secrets: passwords}
	if err := st.Servers.Start(ctx, have, &st.cfg, servers); err != nil {
		return err
	}
	if st.ClickHouse != nil {
		st.state.HTTP = st.ClickHouse.HTTP()
	}
	if err := st.configure(ports); err != nil {
		return err
	}
	var said strings.Builder
	if err := app.Setup(ctx, st.cfg, false, &said); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	if err := st.roles(ctx); err != nil {
		return err
	}
	return st.save()
}

// configure completes the configuration and writes it to the file that roles and commands read.
func (st *stack) configure(ports Ports) error {
	o, c := st.opts, &st.cfg
	key, hash, err := Key(filepath.Join(o.Data, "key"))
	if err != nil {
		return err
	}
	token, _, err := Key(filepath.Join(o.Data, "admin-token"))
	if err != nil {
		return err
	}
	loadAdmin, err := FreePort()
	if err != nil {
		return err
	}
	c.Admin.Token, c.Admin.TokenFile = token, ""
	c.Admin.Listen = Loopback(ports.admin)
	c.Receiver.Listen, c.Receiver.OTLPGRPCListen = Loopback(ports.receiver), Loopback(ports.otlpGRPC)
	c.Receiver.Keys = append(c.Receiver.Keys, config.Key{Project: "demo", SHA256: hash})
	if c.Receiver.Projects == "" {
		c.Receiver.Projects = filepath.Join(o.Data, "projects.yaml")
		if info, err := os.Stat(c.Receiver.Projects); err != nil || info.Size() == 0 {
			none := []byte("projects: {} # `penstock keys add PROJECT`\n")
			if err := os.WriteFile(c.Receiver.Projects, none, 0o600); err != nil {
				return err
			}
		}
	}
	c.Batcher.Dir = filepath.Join(o.Data, "receive")
	c.Batcher.Format, c.Batcher.RollAge = o.Format, config.Duration(o.Roll)
	st.state = State{
		Receiver: c.Receiver.TLS.URL(c.Receiver.Listen), OTLPGRPC: c.Receiver.OTLPGRPCListen,
		Admin: c.Admin.TLS.URL(c.Admin.Listen), LoadAdmin: c.Admin.TLS.URL(Loopback(loadAdmin)),
		S3: st.MinIO.Endpoint(), Console: st.MinIO.Console(), NATS: st.NATS.URL(), ClickHouse: c.ClickHouse.Addresses[0],
		HTTP: st.state.HTTP,
		User: c.ClickHouse.User, Password: c.ClickHouse.Password,
		Key: key, Config: filepath.Join(o.Data, "penstock.yaml"), Pids: map[string]int{"dev": os.Getpid()},
	}
	st.TLS = c.Status.TLS
	c.Status.Admins = []string{st.state.Admin, st.state.LoadAdmin}
	return config.Write(st.state.Config, *c)
}

// roles starts receiver and loader, each a separate process, and waits
// until both are ready.
func (st *stack) roles(ctx context.Context) error {
	for _, role := range []struct{ name, admin string }{{"receive", st.state.Admin}, {"load", st.state.LoadAdmin}} {
		log := filepath.Join(st.opts.Data, role.name+".log")
		if _, err := st.StartRole(ctx, role.name, st.state.Config, role.admin, log); err != nil {
			return err
		}
	}
	return nil
}

// save writes DATA/dev.json.
func (st *stack) save() error {
	for _, p := range st.Processes {
		name := strings.ToLower(strings.TrimPrefix(p.Name, "penstock "))
		st.state.Pids[name] = p.Pid
	}
	// #nosec G117 -- the passwords are what the file is for; its mode is 0600
	text, err := json.MarshalIndent(st.state, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(st.opts.Data, "dev.json")
	if err := os.WriteFile(path+".tmp", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// configFlag returns the flag that commands in this folder need if they would find another configuration, or none.
func (st *stack) configFlag() string {
	if found, err := filepath.Abs(config.Find()); err == nil && found == st.state.Config {
		return ""
	}
	return " --config " + st.state.Config
}

func (st *stack) welcome(took time.Duration) {
	w, s := st.opts.Out, st.state
	fmt.Fprintf(w, "\nPenstock is ready (%.1f s).\n\n", took.Seconds())
	for _, line := range [][2]string{
		{"receiver", s.Receiver + "/v1/events"},
		{"OTLP over gRPC", s.OTLPGRPC},
		{"console", fmt.Sprintf("%s/  (token in %s)", s.Admin, filepath.Join(st.opts.Data, "admin-token"))},
		{"admin", s.Admin + "/metrics"},
		{"loader's admin", s.LoadAdmin + "/metrics"},
		{"MinIO", s.S3},
		{"MinIO console", fmt.Sprintf("%s  (user %s, password %s)", s.Console, st.cfg.Storage.AccessKey,
			st.cfg.Storage.SecretKey)},
		{"NATS", s.NATS},
		{"ClickHouse", fmt.Sprintf("%s  %s  (user %s, password %s)", s.ClickHouse, s.HTTP, s.User, s.Password)},
		{"key", s.Key},
		{"configuration", s.Config},
		{"logs", filepath.Join(st.opts.Data, "*.log") + ", " + filepath.Join(st.opts.Data, "*", "*.log")},
	} {
		fmt.Fprintf(w, "  %-15s %s\n", line[0], line[1])
	}
	fmt.Fprintf(w,
		"\nSend an event:\n\n  curl -sS %s/v1/events -H 'Authorization: Bearer %s' -d "+
			"'{\"name\":\"level_start\",\"user_id\":\"u1\",\"level\":3}'\n", s.Receiver, s.Key)
	if s.HTTP != "" {
		fmt.Fprintf(w,
			"\nQuery its row, up to %.0f s later:\n\n  curl -sS -u '%s:%s' '%s/?database=%s' -d 'SELECT timestamp, name, "+
				"user_id, properties.level, object FROM events_once ORDER BY received_at DESC LIMIT 5 FORMAT PrettyCompact'\n",
			(st.opts.Roll + 3*time.Second).Seconds(), s.User, s.Password, s.HTTP, st.cfg.ClickHouse.Database)
	}
	fmt.Fprintf(w, "\nIn a second terminal, in this folder:\n\n"+
		"  penstock status%[1]s        what waits where      (or: go run ./cmd/penstock status)\n"+
		"  penstock tail%[1]s          events as they come\n"+
		"  penstock objects list%[1]s  objects in the bucket\n"+
		"  penstock errors list%[1]s   rejected events\n\nCtrl-C stops everything.\n\n", st.configFlag())
}
