package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/tools/devstack"
)

// devOptions are dev's flags.
type devOptions struct {
	data     string
	config   string
	portBase int
	roll     time.Duration
	format   string
	demo     int
	events   int
	exit     bool
	json     bool
	fetch    bool
}

// devPorts are the ports of a dev stack, in the order in which --port-base counts.
type devPorts struct{ receiver, admin, minio, console, nats, tcp, http, otlpGRPC int }

func portsFrom(base int) devPorts {
	if base == 0 {
		return devPorts{8080, 8081, 9100, 9101, 4222, 9000, 8123, 4317}
	}
	return devPorts{base, base + 1, base + 2, base + 3, base + 4, base + 5, base + 6, base + 7}
}

// devState is DATA/dev.json: what another program needs to know of a stack
// that runs. It is there only while the stack runs.
type devState struct {
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

func runDev(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "dev", "Runs MinIO, NATS, ClickHouse, a receiver and a loader on this machine, on 127.0.0.1 only.\nWhat is missing is fetched first, once. Ctrl-C stops everything.")
	var o devOptions
	fs.StringVar(&o.data, "data", config.DevFolder, "`folder` for all data, logs, and the configuration that it writes")
	fs.StringVar(&o.config, "config", "", "`file` to begin with; a ClickHouse that it names is used instead of one of our own")
	fs.IntVar(&o.portBase, "port-base", 0, "`port` of the receiver; admin, MinIO, its console, NATS, ClickHouse, its HTTP, OTLP over gRPC take the next seven (default 8080, 8081, 9100, 9101, 4222, 9000, 8123, 4317)")
	fs.DurationVar(&o.roll, "roll", 5*time.Second, "`age` at which a batch becomes an object")
	fs.StringVar(&o.format, "format", "parquet", "`format` of objects: parquet or ndjson")
	fs.IntVar(&o.demo, "demo", 0, "send generated game and LLM events at this `rate` a second, with a live line; with --events, until so many are sent")
	fs.IntVar(&o.events, "events", 0, "send this `number` of generated events, wait until all are rows, print a summary")
	fs.BoolVar(&o.exit, "exit", false, "stop everything then; exit status 1 unless every event is a row")
	fs.BoolVar(&o.fetch, "fetch", false, "only fetch what is missing")
	fs.BoolVar(&o.json, "json", false, "the summary as JSON")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	if _, err := pipeline.ParseFormat(o.format); err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	switch {
	case o.events < 0 || o.demo < 0:
		return errors.New("--events and --demo take a number of 1 or more")
	case o.exit && o.events == 0:
		return errors.New("--exit goes with --events: it ends the stack when they are rows")
	case o.json && o.events == 0:
		return errors.New("--json goes with --events: it prints their summary")
	}
	if o.roll < 10*time.Millisecond {
		return fmt.Errorf("--roll %s: at least 10ms", o.roll)
	}
	if o.portBase != 0 && (o.portBase < 1 || o.portBase > 65535-7) {
		return fmt.Errorf("--port-base %d: between 1 and %d", o.portBase, 65535-7)
	}
	if o.fetch {
		_, err := fetchTools(ctx, s)
		return err
	}
	return dev(ctx, s, o)
}

// stack is a dev stack that runs.
type stack struct {
	servers
	opts  devOptions
	out   streams
	cfg   config.Config
	state devState
}

func dev(ctx context.Context, s streams, o devOptions) (err error) {
	began := time.Now()
	data, err := filepath.Abs(o.data)
	if err != nil {
		return err
	}
	o.data = data
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	unlock, err := lockData(data)
	if err != nil {
		return err
	}
	defer unlock()
	st := &stack{opts: o, out: s}
	defer func() {
		st.stop(time.Duration(st.cfg.Process.Drain) + 5*time.Second)
		os.Remove(filepath.Join(data, "dev.json"))
	}()
	if err := st.start(ctx); err != nil {
		if taken, ok := errors.AsType[*devstack.PortTakenError](err); ok {
			return fmt.Errorf("port %d (%s) is taken by another program: end that, or choose other ports with --port-base", taken.Port, taken.For)
		}
		if ctx.Err() != nil {
			return errors.New("stopped while starting")
		}
		return err
	}
	if !o.json {
		st.welcome(time.Since(began))
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, p := range st.processes {
		go func() {
			select {
			case <-p.Done():
				// At once: to stop the others may take a while.
				fmt.Fprintf(s.err, "\n%v\nstopping the others\n", p.Err())
				cancel(fmt.Errorf("%s ended: see above", p.Name))
			case <-work.Done():
			}
		}()
	}
	switch {
	case o.events > 0:
		err = st.events(work)
	case o.demo > 0:
		err = st.demo(work)
	}
	if err == nil && !o.exit {
		<-work.Done()
	}
	if cause := context.Cause(work); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause // a child died: that explains whatever else went wrong
	}
	if ctx.Err() != nil {
		fmt.Fprintln(s.err, "stopping")
		return nil
	}
	return err
}

// lockData keeps a second stack out of the folder.
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

// start brings up everything; what an error leaves running is stop's.
func (st *stack) start(ctx context.Context) error {
	o, ports := st.opts, portsFrom(st.opts.portBase)
	var err error
	if st.cfg, err = config.Load(o.config, os.Environ()); err != nil {
		return err
	}
	ownClickHouse := strings.Join(st.cfg.ClickHouse.Addresses, ",") == strings.Join(config.Default().ClickHouse.Addresses, ",")
	for _, p := range []devstack.PortTakenError{{Port: ports.receiver, For: "receiver"}, {Port: ports.admin, For: "admin"}, {Port: ports.otlpGRPC, For: "OTLP over gRPC"}} {
		if l, err := net.Listen("tcp", loopback(p.Port)); err != nil {
			return &p
		} else {
			l.Close()
		}
	}
	have, err := fetchTools(ctx, st.out)
	if err != nil {
		return err
	}
	passwords, err := devSecrets(o.data)
	if err != nil {
		return err
	}
	if err := st.servers.start(ctx, have, &st.cfg, serverOptions{data: o.data, ports: ports, queue: true, tables: ownClickHouse,
		// Kept on disk while NATS is away; MinIO then sends each within 3 s.
		queueDir: filepath.Join(o.data, "minio", "notifications"), secrets: passwords}); err != nil {
		return err
	}
	if st.clickhouse != nil {
		st.state.HTTP = st.clickhouse.HTTP()
	}
	if err := st.configure(ports); err != nil {
		return err
	}
	var said strings.Builder
	if err := setup(ctx, st.cfg, &said); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	if err := st.roles(ctx); err != nil {
		return err
	}
	return st.save()
}

// configure completes the configuration and writes it where the roles, and
// an operator's commands, read it.
func (st *stack) configure(ports devPorts) error {
	o, c := st.opts, &st.cfg
	key, hash, err := devKey(filepath.Join(o.data, "key"))
	if err != nil {
		return err
	}
	token, _, err := devKey(filepath.Join(o.data, "admin-token"))
	if err != nil {
		return err
	}
	loadAdmin, err := freePort()
	if err != nil {
		return err
	}
	c.Admin.Token, c.Admin.TokenFile = token, ""
	c.Admin.Listen, c.Receiver.Listen, c.Receiver.OTLPGRPCListen = loopback(ports.admin), loopback(ports.receiver), loopback(ports.otlpGRPC)
	c.Receiver.Keys = append(c.Receiver.Keys, config.Key{Project: "demo", SHA256: hash})
	if c.Receiver.Projects == "" {
		c.Receiver.Projects = filepath.Join(o.data, "projects.yaml")
		if info, err := os.Stat(c.Receiver.Projects); err != nil || info.Size() == 0 {
			if err := os.WriteFile(c.Receiver.Projects, []byte("projects: {} # `penstock keys add PROJECT`\n"), 0o600); err != nil {
				return err
			}
		}
	}
	c.Batcher.Dir, c.Batcher.Format, c.Batcher.RollAge = filepath.Join(o.data, "receive"), o.format, config.Duration(o.roll)
	st.state = devState{
		Receiver: c.Receiver.TLS.URL(c.Receiver.Listen), OTLPGRPC: c.Receiver.OTLPGRPCListen,
		Admin: c.Admin.TLS.URL(c.Admin.Listen), LoadAdmin: c.Admin.TLS.URL(loopback(loadAdmin)),
		S3: st.minio.Endpoint(), Console: st.minio.Console(), NATS: st.nats.URL(), ClickHouse: c.ClickHouse.Addresses[0], HTTP: st.state.HTTP,
		User: c.ClickHouse.User, Password: c.ClickHouse.Password,
		Key: key, Config: filepath.Join(o.data, "penstock.yaml"), Pids: map[string]int{"dev": os.Getpid()},
	}
	st.files = c.Status.TLS
	c.Status.Admins = []string{st.state.Admin, st.state.LoadAdmin}
	return config.Write(st.state.Config, *c)
}

// roles starts receiver and loader, each a process of its own, and waits
// until both are ready.
func (st *stack) roles(ctx context.Context) error {
	for _, role := range []struct{ name, admin string }{{"receive", st.state.Admin}, {"load", st.state.LoadAdmin}} {
		if _, err := st.startRole(ctx, role.name, st.state.Config, role.admin, filepath.Join(st.opts.data, role.name+".log")); err != nil {
			return err
		}
	}
	return nil
}

// save writes DATA/dev.json.
func (st *stack) save() error {
	for _, p := range st.processes {
		name := strings.ToLower(strings.TrimPrefix(p.Name, "penstock "))
		st.state.Pids[name] = p.Pid
	}
	text, err := json.MarshalIndent(st.state, "", "  ") // #nosec G117 -- the passwords are what the file is for; its mode is 0600
	if err != nil {
		return err
	}
	path := filepath.Join(st.opts.data, "dev.json")
	if err := os.WriteFile(path+".tmp", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func (st *stack) welcome(took time.Duration) {
	w, s := st.out.out, st.state
	fmt.Fprintf(w, "\nPenstock is ready (%.1f s).\n\n", took.Seconds())
	for _, line := range [][2]string{
		{"receiver", s.Receiver + "/v1/events"}, {"OTLP over gRPC", s.OTLPGRPC}, {"admin", s.Admin + "/metrics"}, {"loader's admin", s.LoadAdmin + "/metrics"},
		{"MinIO", s.S3}, {"MinIO console", s.Console + "  (user " + st.cfg.Storage.AccessKey + ", password " + st.cfg.Storage.SecretKey + ")"},
		{"NATS", s.NATS}, {"ClickHouse", s.ClickHouse + "  " + s.HTTP + "  (user " + s.User + ", password " + s.Password + ")"}, {"key", s.Key}, {"configuration", s.Config}, {"logs", filepath.Join(st.opts.data, "*.log") + ", " + filepath.Join(st.opts.data, "*", "*.log")},
	} {
		fmt.Fprintf(w, "  %-15s %s\n", line[0], line[1])
	}
	fmt.Fprintf(w, "\nSend an event:\n\n  curl -sS %s/v1/events -H 'Authorization: Bearer %s' -d '{\"name\":\"level_start\",\"user_id\":\"u1\",\"level\":3}'\n", s.Receiver, s.Key)
	if s.HTTP != "" {
		fmt.Fprintf(w, "\nIts row, some %s later:\n\n  curl -sS -u '%s:%s' '%s/?database=%s' -d 'SELECT timestamp, name, user_id, properties.level, object FROM events_once ORDER BY received_at DESC LIMIT 5 FORMAT PrettyCompact'\n",
			(st.opts.roll + 3*time.Second).Round(time.Second), s.User, s.Password, s.HTTP, st.cfg.ClickHouse.Database)
	}
	fmt.Fprint(w, "\nWhat waits where: penstock status (go run ./cmd/penstock status); what was stored or refused: penstock objects ls, penstock errors list. Ctrl-C stops everything.\n\n")
}
