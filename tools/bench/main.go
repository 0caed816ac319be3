// Command bench measures Penstock and its peers on this machine. README.md says what each command does. Linux only: it
// reads /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/penstock/penstock/tools/bench/peers"
)

// streams are a command's outputs: results, and everything else.
type streams struct{ out, err io.Writer }

// errUsage ends the program with status 2. The message has been printed.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, streams{os.Stdout, os.Stderr}, os.Args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s streams, args []string) error {
	sub := ""
	if len(args) > 0 {
		sub = args[0]
	}
	switch sub {
	case "peers":
		return peers.Run(ctx, args[1:])
	case "ask":
		return runAsk(ctx, s, args[1:])
	case "plot":
		return runPlot(s, args[1:])
	case "floor": // the process that --floor starts
		return runFloor(ctx, s, args[1:])
	case "large": // the process that --large starts
		return runLarge(ctx, s, args[1:])
	}
	for _, c := range benchCommands {
		if c.name != sub {
			continue
		}
		o, err := c.parse(s, args[1:])
		if err != nil {
			return err
		}
		return o.run(ctx, s)
	}
	w := s.err
	if sub == "-h" || sub == "--help" || sub == "help" {
		w = s.out
	} else if sub != "" {
		fmt.Fprintf(w, "bench: unknown command %q\n\n", sub)
	}
	fmt.Fprint(w, "Usage: go run -C tools/bench . COMMAND [FLAGS]\n\n")
	for _, c := range benchCommands {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, "\nFiles that flags name are relative to tools/bench.\n")
	if w == s.out {
		return nil
	}
	return errUsage
}

func newFlags(s streams, name, about string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(s.err)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Usage: go run -C tools/bench . %s [FLAGS]\n\n%s\n\n", name, about)
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

// parseFlags reads a command's flags. It rejects arguments.
func parseFlags(fs *flag.FlagSet, args []string) error {
	free, err := parseWithArgs(fs, args)
	if err == nil && len(free) > 0 {
		fmt.Fprintf(fs.Output(), "bench %s: unexpected argument %q\n", fs.Name(), free[0])
		return errUsage
	}
	return err
}

// parseWithArgs reads flags and arguments in any order.
func parseWithArgs(fs *flag.FlagSet, args []string) (free []string, err error) {
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, err
		} else if err != nil {
			return nil, errUsage // the flag package has printed the message
		}
		if fs.NArg() == 0 {
			return free, nil
		}
		free = append(free, fs.Arg(0))
		args = fs.Args()[1:]
	}
}
