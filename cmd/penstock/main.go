// Command penstock is the one binary: each role and each operation is a command. A command reads its flags;
// internal/app and internal/operate do the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/version"
)

// streams are where a command writes: results to out, all else to err.
type streams struct{ out, err io.Writer }

// errUsage ends the program with status 2. What is wrong has been printed.
var errUsage = errors.New("usage")

func main() {
	// A second signal, while the first is being obeyed, ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	// Commands print what clients sent. It must not reach a terminal as commands to that.
	err := run(ctx, streams{show.Plain(os.Stdout), os.Stderr}, os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		w := show.Plain(os.Stderr)
		show.Print(w, show.Red, "penstock: ")
		fmt.Fprintln(w, err)
		os.Exit(1)
	}
}

// run runs the command that args name, and prints what is wrong with them.
func run(ctx context.Context, s streams, args []string) error {
	root := newRoot(s)
	root.SetArgs(args)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagError(cmd, err, args) })
	cmd, err := root.ExecuteContextC(ctx)
	if _, ok := errors.AsType[*operate.UsageError](err); ok {
		name := cmd.CommandPath()
		fmt.Fprintf(s.err, "%s: %v\nRun \"%s --help\" for its arguments and flags.\n", name, err, name)
		return errUsage
	}
	return err
}

// usageText is the help of each command below its description. No line is wider than 100 columns.
const usageText = `Usage: {{.UseLine}}
{{range $g := .Groups}}
{{$g.Title}}:
{{range $.Commands}}{{if and .IsAvailableCommand (eq .GroupID $g.ID)}}  {{rpad .Name .NamePadding}}  {{.Short}}
{{end}}{{end}}{{end}}{{if and .HasAvailableSubCommands (not .Groups)}}
Commands:
{{range .Commands}}{{if .IsAvailableCommand}}  {{rpad .Name .NamePadding}}  {{.Short}}
{{end}}{{end}}{{end}}{{if .HasExample}}
Examples:
{{.Example}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsagesWrapped 100}}{{end}}{{if .HasAvailableSubCommands}}
Flags of a command: {{.CommandPath}} COMMAND --help
{{end}}`

// Groups of commands in the help.
const (
	groupRun     = "run"
	groupOperate = "operate"
	groupHelp    = "help"
)

// newRoot makes the whole command line.
func newRoot(s streams) *cobra.Command {
	v := version.Current()
	root := group("penstock", "Penstock receives events over HTTP and loads them into ClickHouse through an object store.")
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.Example = "  penstock dev        try it: the whole stack on this machine\n" +
		"  penstock status     what waits where, and how fresh the table is"
	root.Version = v.String()
	root.SetVersionTemplate("penstock {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetUsageTemplate(usageText)
	root.SetHelpTemplate("{{with or .Long .Short}}{{trimTrailingWhitespaces .}}\n\n{{end}}{{.UsageString}}")
	root.AddGroup(&cobra.Group{ID: groupRun, Title: "Run"}, &cobra.Group{ID: groupOperate, Title: "Operate"},
		&cobra.Group{ID: groupHelp, Title: "More"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add(groupRun, devCommand(), receiveCommand(), loadCommand(), setupCommand())
	add(groupOperate, append(operationCommands(), configCommand())...)
	add(groupHelp, versionCommand())
	root.AddCommand(loadAloneCommand(), benchCommand())
	root.SetHelpCommand(helpCommand(root))
	root.SetHelpCommandGroupID(groupHelp)
	root.SetCompletionCommandGroupID(groupHelp)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		asGroup(completion)
	}
	root.InitDefaultVersionFlag()
	root.Flags().Lookup("version").Usage = "print version and commit"
	describeFlags(root)
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		if !isService(cmd) && !signal.Ignored(syscall.SIGHUP) { // a terminal that closes ends its commands
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			context.AfterFunc(ctx, stop)
			cmd.SetContext(ctx)
		}
	}
	return root
}

// describeFlags lets the help of all commands show a switch by its name, without [=true|false].
func describeFlags(cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	cmd.Flags().Lookup("help").Usage = "show this help"
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == "bool" {
			f.Value = struct{ pflag.Value }{f.Value}
		}
	})
	for _, c := range cmd.Commands() {
		describeFlags(c)
	}
}

// group makes a command that has only commands.
func group(name, short string) *cobra.Command {
	return asGroup(&cobra.Command{Use: name + " COMMAND", Short: short, DisableFlagsInUseLine: true})
}

// asGroup makes anything but one of its commands wrong usage.
func asGroup(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			fmt.Fprint(cmd.ErrOrStderr(), cmd.UsageString())
			return errUsage
		}
		return unknownCommand(cmd, args[0])
	}
	return cmd
}

// helpCommand prints the help of the command that its arguments name.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command", DisableFlagsInUseLine: true,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 && cmd.HasSubCommands() {
				return unknownCommand(cmd, rest[0])
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// leaf completes a command without arguments.
func leaf(c *cobra.Command) *cobra.Command {
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return operate.Usagef("unexpected argument %q", args[0])
		}
		return nil
	}
	c.ValidArgsFunction = cobra.NoFileCompletions
	return c
}
