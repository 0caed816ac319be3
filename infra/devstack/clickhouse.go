package devstack

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ClickHouseOptions say how to run ClickHouse.
type ClickHouseOptions struct {
	Engine   ClickHouseEngine // see Fetcher.ClickHouse
	Data     string           // the folder for tables, configuration and log, made when missing
	TCPPort  int              // the native protocol; 0: a free one
	HTTPPort int              // 0: a free one
}

// ClickHouse is a running ClickHouse server. Its user is default, without a password, from this machine only.
//
// Run from the library it differs from an ordinary server in three things: its database default is of another kind, so
// create one of your own; asynchronous inserts are run as plain ones; and a KILL QUERY without a condition ends it.
type ClickHouse struct {
	*Process
	options ClickHouseOptions
	ports   ports
}

// StartClickHouse starts the server and returns when it answers queries. ctx is for the start alone.
func StartClickHouse(ctx context.Context, o ClickHouseOptions) (*ClickHouse, error) {
	data, err := filepath.Abs(o.Data) // the configuration holds paths, and the server has its own idea of where they begin
	if err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	o.Data = data
	return untilFree(func() (*ClickHouse, ports, error) {
		chosen, err := choose(port{number: o.TCPPort, use: "ClickHouse"}, port{number: o.HTTPPort, use: "ClickHouse HTTP"})
		if err != nil {
			return nil, nil, err
		}
		c := &ClickHouse{options: o, ports: chosen}
		if err := c.Restart(ctx); err != nil {
			return nil, chosen, err
		}
		return c, chosen, nil
	})
}

// Restart starts the server again, on the same ports and data, and returns when it answers queries. It stops the old
// process if that still runs. Nobody may use c meanwhile.
func (c *ClickHouse) Restart(ctx context.Context) error {
	if c.Process != nil {
		c.Stop(ctx)
	}
	config, err := c.configure()
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	process, err := launch(ctx, c.options.Engine.command(config, filepath.Join(c.options.Data, "clickhouse.log")), c.ports, c.probe)
	if err != nil {
		return err
	}
	c.Process = process
	return nil
}

// Addr is host:port of the native protocol.
func (c *ClickHouse) Addr() string { return address(c.ports[0].number) }

// HTTP is the HTTP interface's URL.
func (c *ClickHouse) HTTP() string { return "http://" + address(c.ports[1].number) }

// probe asks on both ports.
func (c *ClickHouse) probe(ctx context.Context) error {
	if _, err := httpGet(ctx, c.HTTP()+"/ping"); err != nil {
		return err
	}
	if one, err := httpGet(ctx, c.HTTP()+"/?query="+url.QueryEscape("SELECT 1")); err != nil {
		return err
	} else if one != "1\n" {
		return fmt.Errorf("SELECT 1 gives %q", one)
	}
	return listens(ctx, c.Addr())
}

// configure writes the server's configuration and returns its path. Both kinds of engine read the same, so that what
// works with one works with the other; settings of tables are left at their defaults.
func (c *ClickHouse) configure() (string, error) {
	users, config := filepath.Join(c.options.Data, "users.xml"), filepath.Join(c.options.Data, "config.xml")
	if err := os.MkdirAll(c.options.Data, 0o755); err != nil {
		return "", err
	}
	text := fmt.Sprintf(serverConfig, escape(filepath.Join(c.options.Data, "db")+"/"), host,
		c.ports[0].number, c.ports[1].number, escape(users))
	return config, errors.Join(
		os.WriteFile(users, []byte(usersConfig), 0o644),
		os.WriteFile(config, []byte(text), 0o644),
	)
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes all
	return b.String()
}

// serverConfig has no system logs (query_log and the like: they are on only where a configuration names them) and no ports
// but two. The pools are a server's default and close to it; the library would come with 2 threads in each.
const serverConfig = `<clickhouse>
  <logger>
    <level>warning</level>
    <console>1</console>
  </logger>
  <path>%s</path>
  <listen_host>%s</listen_host>
  <tcp_port>%d</tcp_port>
  <http_port>%d</http_port>
  <background_pool_size>16</background_pool_size>
  <background_schedule_pool_size>16</background_schedule_pool_size>
  <user_directories>
    <users_xml><path>%s</path></users_xml>
  </user_directories>
</clickhouse>
`

// usersConfig's settings are a server's defaults, which the library has otherwise.
const usersConfig = `<clickhouse>
  <profiles>
    <default>
      <implicit_select>0</implicit_select>
      <allow_introspection_functions>0</allow_introspection_functions>
    </default>
  </profiles>
  <quotas>
    <default/>
  </quotas>
  <users>
    <default>
      <password></password>
      <networks>
        <ip>127.0.0.1</ip>
        <ip>::1</ip>
      </networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
    </default>
  </users>
</clickhouse>
`
