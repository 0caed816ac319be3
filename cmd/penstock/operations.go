package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
)

// common are the flags that all commands of operations have.
type common struct {
	config, server, token, ca *string
	json                      *bool
}

func commonFlags(fs *flag.FlagSet) common {
	return common{
		config: configFlag(fs),
		server: fs.String("server", "", "`URL` of an admin listener that shall do it; else it is done from here"),
		token: fs.String("token", "",
			"admin `token` of that server; else PENSTOCK_ADMIN_TOKEN, else admin.token of the configuration"),
		ca: fs.String("ca", "",
			"`file` with the CA of that server's certificate; else status.tls.ca of the configuration"),
		json: fs.Bool("json", false, "as JSON, a line an item"),
	}
}

// executor is that of the flags; close it afterwards.
func (c common) executor(s streams) (operate.Executor, func() error, error) {
	if *c.server != "" {
		token := *c.token
		if token == "" {
			token = os.Getenv("PENSTOCK_ADMIN_TOKEN")
		}
		cfg, err := findConfig(*c.config)
		if err != nil && *c.config != "" {
			return nil, nil, err
		}
		if token == "" {
			if secret, err := cfg.Admin.Secret(slog.New(slog.DiscardHandler)); err == nil {
				token = secret()
			}
		}
		if token == "" {
			return nil, nil,
				errors.New("--server needs a token: --token, PENSTOCK_ADMIN_TOKEN, admin.token or admin.token_file in the " +
					"configuration")
		}
		files := cfg.Status.TLS
		if *c.ca != "" {
			files.CA = *c.ca
		}
		return operate.Remote(*c.server, token, files.HTTPClient()), func() error { return nil }, nil
	}
	cfg, err := findConfig(*c.config)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Process.LogLevel == "info" {
		cfg.Process.LogLevel = "error" // a command's own words are enough
	}
	log, err := cfg.Process.Logger(s.err)
	if err != nil {
		return nil, nil, err
	}
	o, closeOperator := app.NewOperator(cfg, app.Isolation(*c.config, "operator-"+app.LoaderName(cfg), s.err), log)
	o.Said, o.From = s.err, " in "+cmp.Or(*c.config, config.Find())
	if o.From == " in " {
		o.From = " (no configuration was found here, --config names one)"
	}
	return operate.Local(o), closeOperator, nil
}

// bind makes flags of an operation's params; the fields of arguments are returned.
func bind(fs *flag.FlagSet, params any) (args []operate.Field) {
	for _, f := range operate.Fields(params) {
		switch {
		case f.Arg != "":
			args = append(args, f)
		case f.Value.Kind() == reflect.Bool:
			fs.BoolVar(f.Value.Addr().Interface().(*bool), f.Name, f.Value.Bool(), f.Usage)
		case f.Value.Kind() == reflect.Int:
			fs.IntVar(f.Value.Addr().Interface().(*int), f.Name, int(f.Value.Int()), f.Usage)
		case f.Value.Kind() == reflect.Slice:
			fs.Func(f.Name, f.Usage, f.Set)
		default:
			fs.StringVar(f.Value.Addr().Interface().(*string), f.Name, f.Value.String(), f.Usage)
		}
	}
	return args
}

// parseWithArgs reads flags and, between and behind them, arguments.
func parseWithArgs(fs *flag.FlagSet, args []string) ([]string, error) {
	var free []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, errUsage
		}
		if fs.NArg() == 0 {
			return free, nil
		}
		free = append(free, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

// extra is what a command does besides its operation.
type extra struct {
	about   string
	flags   func(fs *flag.FlagSet)
	prepare func(ctx context.Context, ex operate.Executor, params any) error                      // before it
	replace func(op operate.Operation, ex operate.Executor) (operate.Operation, operate.Executor) // in place of it
}

// extraOf are the commands that do more than their operations.
func extraOf(name string, s streams) (x extra) {
	switch name {
	case "dlq drop":
		x.prepare = func(ctx context.Context, ex operate.Executor, params any) error {
			return operate.ConfirmDrop(ctx, ex, params, os.Stdin, s.err)
		}
	case "reingest":
		x.prepare = func(_ context.Context, _ operate.Executor, params any) error {
			return operate.ReadKeys(params, os.Stdin)
		}
	case "errors show":
		raw := false
		x.flags = func(fs *flag.FlagSet) {
			fs.BoolVar(&raw, "raw", false, "print nothing but the bytes that were sent, as they were sent")
		}
		x.prepare = func(_ context.Context, _ operate.Executor, params any) error {
			if raw {
				return operate.CheckRaw(params)
			}
			return nil
		}
		x.replace = func(op operate.Operation, ex operate.Executor) (operate.Operation, operate.Executor) {
			if raw {
				op = operate.Raw(op)
			}
			return op, ex
		}
	case "errors redrive":
		through := ""
		x.about = "\n\n--through CMD mends each payload before it is sent: CMD (run by sh -c) gets the raw bytes on\n" +
			"standard input and prints what is to be sent; where it fails, the failure is left as it is."
		x.flags = func(fs *flag.FlagSet) {
			fs.StringVar(&through, "through", "", "`command` that mends each payload before it is sent")
		}
		x.replace = func(op operate.Operation, ex operate.Executor) (operate.Operation, operate.Executor) {
			if through != "" {
				ex = operate.Through(ex, through)
			}
			return op, ex
		}
	}
	return x
}

// runOperation runs an operation as a command: parse, do, print.
func runOperation(ctx context.Context, s streams, name string, args []string) error {
	op, x := operate.Find(name), extraOf(name, s)
	params := op.NewParams()
	fs := newFlags(s, op.Name, strings.TrimSpace(op.Short+"\n"+op.About+x.about))
	c := commonFlags(fs)
	fields := bind(fs, params)
	if x.flags != nil {
		x.flags(fs)
	}
	if err := parseParams(fs, fields, args); err != nil {
		return err
	}
	ex, done, err := c.executor(s)
	if err != nil {
		return err
	}
	if x.prepare != nil {
		err = x.prepare(ctx, ex, params)
	}
	if x.replace != nil {
		op, ex = x.replace(op, ex)
	}
	if err == nil {
		err = op.Show(ctx, ex, params, operate.Output{Out: s.out, Err: s.err, JSON: *c.json})
	}
	return errors.Join(err, done())
}

// parseParams reads flags into what bind made of params, and arguments into fields.
func parseParams(fs *flag.FlagSet, fields []operate.Field, args []string) error {
	if usage := fs.Usage; len(fields) > 0 {
		fs.Usage = func() {
			usage()
			fmt.Fprint(fs.Output(), "\nArguments, before, between or behind the flags:\n\n")
			for _, f := range fields {
				fmt.Fprintf(fs.Output(), "  %-22s %s\n", f.Arg, f.Usage)
			}
		}
	}
	free, err := parseWithArgs(fs, args)
	if err != nil {
		return err
	}
	for _, a := range free {
		if len(fields) == 0 {
			fmt.Fprintf(fs.Output(), "penstock %s: what is %q?\n", fs.Name(), a)
			return errUsage
		}
		if err := fields[0].Set(a); err != nil {
			return err
		}
		if fields[0].Value.Kind() == reflect.String {
			fields = fields[1:]
		}
	}
	return nil
}

// group is a command with subcommands that are operations.
func group(name, short string) command {
	return command{name, short, func(ctx context.Context, s streams, args []string) error {
		sub := ""
		if len(args) > 0 {
			sub = args[0]
		}
		for _, op := range operate.Operations() {
			if op.Name == name+" "+sub {
				return runOperation(ctx, s, op.Name, args[1:])
			}
		}
		w := s.err
		if sub == "-h" || sub == "--help" || sub == "help" {
			w = s.out
		} else if sub != "" {
			fmt.Fprintf(w, "penstock %s: there is no %q\n\n", name, sub)
		}
		fmt.Fprintf(w, "Usage: penstock %s COMMAND [FLAGS]\n\n", name)
		for _, op := range operate.Operations() {
			if rest, ok := strings.CutPrefix(op.Name, name+" "); ok {
				fmt.Fprintf(w, "  %-9s %s\n", rest, op.Short)
			}
		}
		if w == s.out {
			return nil
		}
		return errUsage
	}}
}
