package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/penstock/penstock/internal/app/dev"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/tools/devstack"
)

const rules = "../../infra/prometheus/penstock.rules.yaml"

// projectsFile has a project with limits and rules, so that the dashboard of a project shows something.
const projectsFile = `projects:
  game: {keys: [{name: a, sha256: %s}]}
  shop:
    rate: {events: 28/s, burst: 2s}
    quota: {events: 5000000}
    sample: {by: session, keep: 0.5, names: [Product Viewed]}
    drop: [properties.email]
    hash: [user_id]
    salt: a-salt-for-pictures
    keys: [{name: a, sha256: %s}]
  assistant: {keys: [{name: a, sha256: %s}]}
`

// stack is a pipeline of real processes and a Prometheus that scrapes them.
type stack struct {
	dev.Servers
	data, config, prometheus string
	keys                     map[string]string // by project
	receivers                []string          // their addresses
}

// startStack starts servers, two receivers, a loader and Prometheus. The program penstock must be on PATH, and so must
// prometheus.
func startStack(ctx context.Context, data string) (_ *stack, err error) {
	s := &stack{data: data, keys: map[string]string{}}
	if s.Program, err = exec.LookPath("penstock"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	have, err := dev.FetchTools(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	c, err := config.Load("", os.Environ())
	if err != nil {
		return nil, err
	}
	if err := s.Start(ctx, have, &c, dev.ServerOptions{Data: data, Queue: true, Tables: true}); err != nil {
		return nil, err
	}
	var hashes []any
	for _, project := range []string{"game", "shop", "assistant"} {
		key, hash, err := dev.Key(filepath.Join(data, project+".key"))
		if err != nil {
			return nil, err
		}
		s.keys[project], hashes = key, append(hashes, hash)
	}
	c.Receiver.Projects, s.config = filepath.Join(data, "projects.yaml"), filepath.Join(data, "penstock.yaml")
	if err := errors.Join(config.WritePrivate(c.Receiver.Projects, fmt.Appendf(nil, projectsFile, hashes...)),
		config.Write(s.config, c)); err != nil {
		return nil, err
	}
	setup := exec.CommandContext(ctx, s.Program, "setup", "--config", s.config) // #nosec G204 -- from PATH
	if out, err := setup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("setup: %w\n%s", err, out)
	}
	targets := map[string]string{}
	for _, name := range []string{"receiver-1", "receiver-2", "loader-1"} {
		if targets[name], err = s.role(ctx, name); err != nil {
			return nil, err
		}
	}
	return s, s.watch(ctx, targets)
}

// role starts a receiver or a loader, and returns the address of its admin listener.
func (s *stack) role(ctx context.Context, name string) (admin string, err error) {
	var ports [2]int
	for i := range ports {
		if ports[i], err = dev.FreePort(); err != nil {
			return "", err
		}
	}
	admin, command := dev.Loopback(ports[1]), "load"
	if strings.HasPrefix(name, "receiver") {
		command = "receive"
		s.receivers = append(s.receivers, dev.Loopback(ports[0]))
	}
	_, err = s.StartRole(ctx, command, s.config, "http://"+admin, filepath.Join(s.data, name+".log"),
		"PENSTOCK_RECEIVER_LISTEN="+dev.Loopback(ports[0]), "PENSTOCK_RECEIVER_NAME="+name, "PENSTOCK_LOADER_NAME="+name,
		"PENSTOCK_BATCHER_DIR="+filepath.Join(s.data, name))
	return admin, err
}

// watch starts Prometheus with our rules.
func (s *stack) watch(ctx context.Context, targets map[string]string) error {
	port, err := dev.FreePort()
	if err != nil {
		return err
	}
	alerts, err := filepath.Abs(rules)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "global: {scrape_interval: 15s}\nrule_files: [%s]\nscrape_configs:\n", alerts)
	b.WriteString("- job_name: penstock\n  static_configs:\n")
	for name, address := range targets {
		fmt.Fprintf(&b, "  - {targets: ['%s'], labels: {instance: %s}}\n", address, name)
	}
	fmt.Fprintf(&b, "- job_name: clickhouse\n  basic_auth: {username: %s, password: %s}\n  static_configs:\n"+
		"  - {targets: ['%s'], labels: {instance: clickhouse-1}}\n", s.ClickHouse.User(), s.ClickHouse.Password(),
		strings.TrimPrefix(s.ClickHouse.HTTP(), "http://"))
	file := filepath.Join(s.data, "prometheus.yml")
	if err := config.WritePrivate(file, []byte(b.String())); err != nil {
		return err
	}
	path, err := exec.LookPath("prometheus")
	if err != nil {
		return err
	}
	p, err := devstack.Start(ctx, devstack.Command{Name: "Prometheus", Path: path,
		Args: []string{"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(s.data, "prometheus"),
			"--web.listen-address=" + dev.Loopback(port)},
		Env: os.Environ(), LogPath: filepath.Join(s.data, "prometheus.log")})
	if err != nil {
		return err
	}
	s.Processes = append(s.Processes, p)
	s.prometheus = "http://" + dev.Loopback(port)
	return dev.AwaitReady(ctx, http.DefaultClient, p, s.prometheus+"/-/ready")
}

// verify runs penstock verify, which the dashboards show.
func (s *stack) verify(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, s.Program, "verify", "--config", s.config) // #nosec G204 -- from PATH
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("verify: %w\n%s", err, out)
	}
	return nil
}

// outage lets ClickHouse answer nothing for a while.
func (s *stack) outage(ctx context.Context, d time.Duration) error {
	if err := s.ClickHouse.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	_ = retry.Sleep(ctx, d) // if ctx ends, the outage does too
	return s.ClickHouse.Signal(syscall.SIGCONT)
}

func (s *stack) stop() { s.Servers.Stop(20 * time.Second) }
