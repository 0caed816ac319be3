// Command penstock is the one binary: each role and each tool of an operator is
// a subcommand. A command reads its flags; internal/app and internal/operate do the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/show"
)

// command is one subcommand. run gets what stands behind its name. One that is
// not for users has no short.
type command struct {
	name  string
	short string
	run   func(ctx context.Context, out streams, args []string) error
}

// streams are where a command writes: results to out, all else to err.
type streams struct{ out, err io.Writer }

func commands() []command {
	return []command{
		{"dev", "run the whole stack on this machine: MinIO, NATS, ClickHouse, receiver, loader", runDev},
		{"receive", "take events over HTTP and store them as objects", runReceive},
		{"load", "load objects into ClickHouse as notifications come", runLoad},
		{app.AloneCommand, "", runLoadOne},
		{"setup", "create bucket, notification rules, streams and tables, or bring them up to date", runSetup},
		{"sweep", "find objects that were never loaded and tell the queue of them", runSweep},
		{"verify", "hold bucket, ledger and table against each other", runVerify},
		group("objects", "list, print and find objects and their events"),
		group("dlq", "list, redrive and drop the objects that were given up"),
		group("errors", "list, show and redrive what was refused"),
		group("keys", "add, list, revoke and rotate the keys of projects"),
		{"reingest", "load objects again, by key, prefix or time range",
			func(ctx context.Context, s streams, args []string) error {
				return runOperation(ctx, s, "reingest", args)
			}},
		{"status", "show what waits where", runStatus},
		{"bench", "moved: in a clone of the repository, `go run -C tools/bench .`", runBench},
		{"version", "print the version", runVersion},
	}
}

// errUsage ends the program with status 2, without a word more.
var errUsage = errors.New("usage")

func main() {
	// A second signal, while the first is being obeyed, ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	// Commands print what clients sent. It must not reach a terminal as commands to that.
	s := streams{show.Plain(os.Stdout), os.Stderr}
	err := run(ctx, s, os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(show.Plain(os.Stderr), "penstock:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s streams, args []string) error {
	if len(args) == 0 {
		usage(s.err)
		return errUsage
	}
	name := args[0]
	if name == "help" || name == "-h" || name == "--help" {
		if len(args) > 1 {
			return run(ctx, s, append(args[1:len(args):len(args)], "--help"))
		}
		usage(s.out)
		return nil
	}
	if last := args[len(args)-1]; last == "-h" || last == "--help" {
		s.err = s.out // it was asked for, and may go through a pager
	}
	for _, c := range commands() {
		if c.name == name {
			err := c.run(ctx, s, args[1:])
			if errors.Is(err, flag.ErrHelp) {
				return nil
			}
			return err
		}
	}
	fmt.Fprintf(s.err, "penstock: there is no command %q\n\n", name)
	usage(s.err)
	return errUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Penstock takes events over HTTP and lands them in ClickHouse by way of an object store.\n\nUsage: "+
		"penstock COMMAND [FLAGS]\n\n")
	for _, c := range commands() {
		if c.short != "" {
			fmt.Fprintf(w, "  %-9s %s\n", c.name, c.short)
		}
	}
	fmt.Fprint(w, "\nA first try: penstock dev\nThe flags of a command: penstock help COMMAND\n")
}

// newFlags makes a command's flags; about says in a line or two what it does.
func newFlags(s streams, name, about string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(s.err)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Usage: penstock %s [FLAGS]\n\n%s\n\n", name, about)
		fs.VisitAll(func(f *flag.Flag) {
			kind, text := flag.UnquoteUsage(f)
			def := ""
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
				def = " (default " + f.DefValue + ")"
			}
			fmt.Fprintf(fs.Output(), "  %-22s %s%s\n", strings.TrimSpace("--"+f.Name+" "+strings.ToUpper(kind)), text, def)
		})
	}
	return fs
}

// parseFlags reads a command's flags; nothing may follow them.
func parseFlags(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage // the flag package has said what is wrong
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(fs.Output(), "penstock %s: what is %q?\n", fs.Name(), fs.Arg(0))
		return errUsage
	}
	return nil
}

// configFlag is --config of every command that works with one.
func configFlag(fs *flag.FlagSet) *string {
	return fs.String("config", "", "configuration `file`; else penstock.yaml here, else that of a dev stack here")
}

// readConfig reads the file that --config names or that is found here, and makes the command's log by it.
func readConfig(path string, s streams) (config.Config, *slog.Logger, error) {
	cfg, err := findConfig(path)
	if err != nil {
		return cfg, nil, err
	}
	log, err := cfg.Process.Logger(s.err)
	return cfg, log, err
}

func findConfig(path string) (config.Config, error) {
	if path == "" {
		path = config.Find()
		if dir := filepath.Dir(path); dir == config.DevFolder {
			if _, err := os.Stat(filepath.Join(dir, "dev.json")); err != nil {
				return config.Config{}, fmt.Errorf("no dev stack runs in %s: start it with `penstock dev`, "+
					"or name a configuration with --config", dir)
			}
		}
	}
	return config.Load(path, os.Environ())
}
