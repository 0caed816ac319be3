package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// minClickHouse is the oldest usable major version of an installed clickhouse, because JSON columns came with 25.
	minClickHouse = 25
	// versionTimeout is long because the first run of a packed clickhouse unpacks it.
	versionTimeout = 60 * time.Second
)

// ClickHouseEngine is a program to start a ClickHouse server with: an ordinary clickhouse, or the library and its
// launcher (chserver.c).
type ClickHouseEngine struct {
	Version  string // for people
	Binary   string // path of the program; "": the library
	Library  string
	Launcher string
}

// ClickHouse returns the clickhouse on PATH if it works and is new enough. Otherwise it returns the library, and
// fetches it if it is missing.
func (f *Fetcher) ClickHouse(ctx context.Context) (ClickHouseEngine, error) {
	installed, err := installedClickHouse(ctx)
	if err == nil {
		return installed, nil
	}
	if !errors.Is(err, exec.ErrNotFound) {
		f.say("not using the clickhouse on PATH: %v", err)
	}
	library, err := f.clickhouseLibrary(ctx)
	if err != nil {
		return ClickHouseEngine{}, fmt.Errorf("fetch ClickHouse: %w", err)
	}
	launcher, err := f.clickhouseLauncher(ctx)
	if err != nil {
		return ClickHouseEngine{}, fmt.Errorf("fetch ClickHouse: %w", err)
	}
	return ClickHouseEngine{Version: engineVersion, Library: library, Launcher: launcher}, nil
}

// installedClickHouse looks for clickhouse on PATH and asks for its version.
func installedClickHouse(ctx context.Context) (ClickHouseEngine, error) {
	binary, err := exec.LookPath("clickhouse")
	if err != nil {
		return ClickHouseEngine{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	output := &tail{}
	if err := (tool{name: binary, args: []string{"--version"}}).run(ctx, output); err != nil {
		return ClickHouseEngine{}, err
	}
	version, major, err := clickhouseVersion(output.String())
	if err != nil {
		return ClickHouseEngine{}, fmt.Errorf("%s --version: %w", binary, err)
	}
	if major < minClickHouse {
		return ClickHouseEngine{}, fmt.Errorf("%s is version %s, older than %d", binary, version, minClickHouse)
	}
	return ClickHouseEngine{Version: version, Binary: binary}, nil
}

// clickhouseVersion finds the version in a line like "ClickHouse local version 25.8.2.29 (official build)."
func clickhouseVersion(line string) (version string, major int, err error) {
	found := regexp.MustCompile(`version (\d+)(\.\d+)*`).FindStringSubmatch(line)
	if found == nil {
		return "", 0, fmt.Errorf("no version in %q", line)
	}
	major, err = strconv.Atoi(found[1])
	return strings.TrimPrefix(found[0], "version "), major, err
}

// command starts the engine as a server with the configuration.
func (e ClickHouseEngine) command(config, log string) Command {
	// A fixed time zone makes tests independent of the machine. The library reads it only here.
	env := append(without(os.Environ(), "CLICKHOUSE_"), "TZ=UTC")
	if e.Binary != "" {
		return Command{
			Name: "ClickHouse", Path: e.Binary, LogPath: log, Dir: filepath.Dir(config),
			Args: []string{"server", "--config-file", config},
			// The watchdog would be the server's parent process and die in its place.
			Env: append(env, "CLICKHOUSE_WATCHDOG_ENABLE=0"),
		}
	}
	return Command{
		Name: "ClickHouse", Path: e.Launcher, LogPath: log, Dir: filepath.Dir(config), Env: env,
		Args: []string{
			e.Library,
			"--config-file", config,
			"--log-level", "warning", "--logger.console", "1", // `local` ignores them in the file
			"--query", sessionQuery,
		},
	}
}

// sessionQuery starts the listeners of `clickhouse local`, then waits forever. Its statements need few rights, so the
// session's user can be limited to them. A SELECT that sleeps would need the right to SELECT.
const sessionQuery = "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; " +
	"SYSTEM ENABLE FAILPOINT dummy_pausable_failpoint; SYSTEM WAIT FAILPOINT dummy_pausable_failpoint PAUSE"
