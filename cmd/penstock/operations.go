package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
)

// operationCommands are all operations: each a command, or a command of a group.
func operationCommands() (all []*cobra.Command) {
	groups := map[string]*cobra.Command{}
	for _, op := range operate.Operations() {
		name, _, grouped := strings.Cut(op.Name, " ")
		if !grouped {
			all = append(all, operationCommand(op))
			continue
		}
		if groups[name] == nil {
			groups[name] = group(name, sentence(operate.Groups()[name]))
			all = append(all, groups[name])
		}
		groups[name].AddCommand(operationCommand(op))
	}
	return all
}

// operationCommand makes a command of an operation: parse, run, print.
func operationCommand(op operate.Operation) *cobra.Command {
	params, x, c := op.NewParams(), extraOf(op.Name), connection{}
	_, last, grouped := strings.Cut(op.Name, " ")
	if !grouped {
		last = op.Name
	}
	cmd := &cobra.Command{
		Use: last, Aliases: op.Aliases, Short: sentence(op.Short),
		Long: strings.TrimSpace(sentence(op.Short) + ".\n" + op.About + x.about),
	}
	args := bind(cmd, params)
	cmd.Long += aboutArgs(args)
	for _, f := range args {
		if f.Optional {
			f.Arg = "[" + f.Arg + "]"
		}
		cmd.Use += " " + f.Arg
	}
	cmd.Args = func(_ *cobra.Command, given []string) error { return setArgs(args, given) }
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Flags().SortFlags = false // the command's own come first, then those of all commands
	if op.Name == "status" {
		cmd.Flags().BoolVar(&x.watch, "watch", false, "repeat every two seconds, until Ctrl-C")
	}
	if x.flags != nil {
		x.flags(cmd.Flags())
	}
	c.flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := op.CheckFields(params); err != nil {
			return err
		}
		ex, done, err := c.executor(cmd)
		if err != nil {
			return err
		}
		if x.prepare != nil {
			err = x.prepare(cmd, ex, params)
		}
		if x.replace != nil {
			op, ex = x.replace(op, ex)
		}
		to := operate.Output{Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr(), JSON: c.json}
		switch {
		case err != nil:
		case x.watch:
			err = op.Watch(cmd.Context(), ex, params, to, 2*time.Second)
		default:
			err = op.Show(cmd.Context(), ex, params, to)
		}
		return errors.Join(err, done())
	}
	return cmd
}

// sentence is a text that begins with a capital.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// value is a parameter of an operation as a flag.
type value struct{ operate.Field }

func (v value) String() string {
	if !v.Value.IsValid() || v.Value.Kind() == reflect.Slice {
		return ""
	}
	return fmt.Sprint(v.Value.Interface())
}

// Type is what the help shows behind the flag.
func (v value) Type() string {
	switch kind := v.Value.Kind(); kind {
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "number"
	}
	switch v.Name {
	case "since", "until", "expires":
		return "time"
	case "grace", "overlap", "scan":
		return "duration"
	case "from", "to":
		return "day"
	}
	return "text"
}

// bind makes flags of an operation's params, and returns the fields of its arguments.
func bind(cmd *cobra.Command, params any) (args []operate.Field) {
	for _, f := range operate.Fields(params) {
		if f.Arg != "" {
			args = append(args, f)
			continue
		}
		flag := cmd.Flags().VarPF(value{f}, f.Name, "", f.Usage)
		if len(f.Enum) > 0 {
			// An error means that the flag has a completion already. It has just been created.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(f.Enum, cobra.ShellCompDirectiveNoFileComp))
		}
		if f.Value.Kind() == reflect.Bool {
			flag.NoOptDefVal = "true"
		}
	}
	return args
}

// aboutArgs describes arguments.
func aboutArgs(args []operate.Field) string {
	if len(args) == 0 {
		return ""
	}
	text, width := "\n\nArguments:", 0
	for _, f := range args {
		width = max(width, utf8.RuneCountInString(f.Arg))
	}
	for _, f := range args {
		text += fmt.Sprintf("\n  %-*s   %s", width, f.Arg, f.Usage)
	}
	return text
}

// setArgs reads arguments. The last field of a list takes all that are left.
func setArgs(fields []operate.Field, args []string) error {
	for _, a := range args {
		if len(fields) == 0 {
			return operate.Usagef("unexpected argument %q", a)
		}
		if err := fields[0].Set(a); err != nil {
			return operate.Usagef("%w", err)
		}
		if fields[0].Value.Kind() == reflect.String {
			fields = fields[1:]
		}
	}
	return nil
}

// connection is how an operation is run: here, or on a server. All operations have its flags.
type connection struct {
	config, server, token, ca string
	json                      bool
}

func (c *connection) flags(fs *pflag.FlagSet) {
	configFlag(fs, &c.config)
	fs.StringVar(&c.server, "server", "", "run the command on the server at this admin `URL` (default: run it here)")
	fs.StringVar(&c.token, "token", "",
		"admin `token` of that server (default: PENSTOCK_ADMIN_TOKEN, then admin.token of the configuration)")
	fs.StringVar(&c.ca, "ca", "",
		"`file` with the CA of that server's certificate (default: status.tls.ca of the configuration)")
	fs.BoolVar(&c.json, "json", false, "print JSON, one line per item")
}

// executor runs operations; close it afterwards.
func (c *connection) executor(cmd *cobra.Command) (operate.Executor, func() error, error) {
	if cmd.Flags().Changed("server") {
		ex, err := c.remote()
		return ex, func() error { return nil }, err
	}
	cfg, sources, err := findConfig(c.config)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Process.LogLevel == "info" {
		cfg.Process.LogLevel = "error" // a command's output is enough
	}
	log, err := cfg.Process.Logger(cmd.ErrOrStderr(), sources)
	if err != nil {
		return nil, nil, err
	}
	isolated := app.Isolation(c.config, "operator-"+app.LoaderName(cfg), cmd.ErrOrStderr())
	o, closeOperator := app.NewOperator(cfg, isolated, log)
	explain := o.Explain
	o.Explain = func(err error) error { return sources.Explain(explain(err)) }
	o.Said, o.From = cmd.ErrOrStderr(), " in "+cmp.Or(c.config, config.Find())
	if o.From == " in " {
		o.From = " (there is no configuration here; name one with --config)"
	}
	return operate.Local(o), closeOperator, nil
}

// remote runs operations on the server of --server.
func (c *connection) remote() (operate.Executor, error) {
	if u, err := url.Parse(c.server); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, operate.Usagef("--server %q: want a URL, such as http://%s", c.server, cmp.Or(c.server, "127.0.0.1:8081"))
	}
	cfg, _, err := findConfig(c.config)
	if err != nil && c.config != "" {
		return nil, err
	}
	token := cmp.Or(c.token, os.Getenv("PENSTOCK_ADMIN_TOKEN"))
	if token == "" {
		if secret, err := cfg.Admin.Secret(slog.New(slog.DiscardHandler)); err == nil {
			token = secret()
		}
	}
	if token == "" {
		return nil, errors.New("--server needs a token: set --token, PENSTOCK_ADMIN_TOKEN, or admin.token or " +
			"admin.token_file in the configuration")
	}
	files := cfg.Status.TLS
	files.CA = cmp.Or(c.ca, files.CA)
	return operate.Remote(c.server, token, files.HTTPClient()), nil
}

// extra is what a command does besides its operation.
type extra struct {
	about   string
	flags   func(fs *pflag.FlagSet)
	watch   bool                                                                                  // go on
	prepare func(cmd *cobra.Command, ex operate.Executor, params any) error                       // before it
	replace func(op operate.Operation, ex operate.Executor) (operate.Operation, operate.Executor) // in place of it
}

// extraOf are the commands that do more than their operations.
func extraOf(name string) (x extra) {
	switch name {
	case "dlq drop":
		x.prepare = func(cmd *cobra.Command, ex operate.Executor, params any) error {
			return operate.ConfirmDrop(cmd.Context(), ex, params, os.Stdin, cmd.ErrOrStderr())
		}
	case "reingest":
		x.prepare = func(_ *cobra.Command, _ operate.Executor, params any) error {
			return operate.ReadKeys(params, os.Stdin)
		}
	case "errors show":
		raw := false
		x.flags = func(fs *pflag.FlagSet) {
			fs.BoolVar(&raw, "raw", false, "print only the bytes that the client sent, unchanged")
		}
		x.prepare = func(_ *cobra.Command, _ operate.Executor, params any) error {
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
		x.about = "\n\n--through CMD fixes each payload before it is sent. CMD (run by sh -c) reads the raw bytes on\n" +
			"standard input and prints the bytes to send. If it fails, the failure record stays as it is."
		x.flags = func(fs *pflag.FlagSet) {
			fs.StringVar(&through, "through", "", "`command` that fixes each payload before it is sent")
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
