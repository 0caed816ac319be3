package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/penstock/penstock/internal/operate"
)

// unknownCommand suggests a command of cmd.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	if known := cmd.SuggestionsFor(name); len(known) > 0 {
		slices.SortStableFunc(known, func(a, b string) int {
			return levenshtein.ComputeDistance(name, a) - levenshtein.ComputeDistance(name, b)
		})
		return operate.Usagef("unknown command %q. Did you mean %q?", name, known[0])
	}
	return operate.Usagef("unknown command %q", name)
}

// flagError suggests a flag for an unknown one. args are all of the command line.
func flagError(cmd *cobra.Command, err error, args []string) error {
	path := strings.Fields(cmd.CommandPath())
	if rest := args[len(path)-1:]; cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return unknownCommand(cmd, rest[0]) // and its flags are those of another
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return operate.Usagef("%w", err)
	}
	name, given := unknown.GetSpecifiedName(), "--"+unknown.GetSpecifiedName()
	if shorts := unknown.GetSpecifiedShortnames(); shorts != "" { // -json
		name, given = shorts, "-"+shorts
	}
	name, _, _ = strings.Cut(name, "=")
	best, distance := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := levenshtein.ComputeDistance(name, f.Name); d < distance && !f.Hidden {
			best, distance = f.Name, d
		}
	})
	if best == "" {
		return operate.Usagef("unknown flag %s", given)
	}
	return operate.Usagef("unknown flag %s. Did you mean --%s?", given, best)
}
