package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/version"
)

func versionCommand() *cobra.Command {
	asJSON := false
	cmd := leaf(&cobra.Command{
		Use: "version", Short: "Print version and commit", Long: "Print version, commit, Go's version and the platform.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version.Current()
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "penstock %s\n", v)
			return err
		}})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

// benchCommand says where the benchmarks are: in a separate module, so that the server does not link them.
func benchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "bench", Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return operate.Usagef("the benchmarks are in a clone of the repository: \"go run -C tools/bench . COMMAND\"")
		}}
}
