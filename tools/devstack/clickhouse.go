package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ClickHouseOptions configure ClickHouse.
type ClickHouseOptions struct {
	Engine   ClickHouseEngine // see Fetcher.ClickHouse
	Data     string           // folder for tables, configuration and log; created if missing
	TCPPort  int              // native protocol; 0: any free port
	HTTPPort int              // 0: any free port
	Password string           // of the user penstock; "": penstock-secret
	Users    string           // additional users and profiles, in the format of users.xml
	Profiles string
}

// ClickHouse is a running ClickHouse server. Its one user is penstock, with a password, only from this machine. HTTP
// requests need the password in a header (Basic authorization or X-ClickHouse-Key), which a web page's form or script
// cannot send. The user may read and write S3, and use no other source: no file(), url(), executable(), remote().
//
// The library differs from an ordinary server in three things. Its database default has another engine, so create your
// own database. It runs asynchronous inserts as synchronous ones. And a KILL QUERY without a condition ends it.
type ClickHouse struct {
	*Process
	options ClickHouseOptions
	ports   ports
}

// StartClickHouse starts the server, and returns when it answers queries. ctx is only for the start.
func StartClickHouse(ctx context.Context, o ClickHouseOptions) (*ClickHouse, error) {
	data, err := filepath.Abs(o.Data) // the server resolves relative paths differently
	if err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	o.Data = data
	if o.Password == "" {
		o.Password = defaultSecretKey
	}
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

// Restart stops the server if it runs, and starts it with the same ports and data. It returns when the server answers
// queries. Do not use c meanwhile.
func (c *ClickHouse) Restart(ctx context.Context) error {
	if c.Process != nil {
		c.Stop(ctx)
	}
	config, err := c.configure()
	if err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	process, err := launch(ctx, c.options.Engine.command(config, filepath.Join(c.options.Data, "clickhouse.log")), c.ports,
		c.probe)
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

// User is the name of the server's user.
func (c *ClickHouse) User() string { return user }

// Password is the user's password.
func (c *ClickHouse) Password() string { return c.options.Password }

// HTTPWithPassword is HTTP with user and password in the URL; clients turn them into a header.
func (c *ClickHouse) HTTPWithPassword() string {
	u := url.URL{Scheme: "http", User: url.UserPassword(c.User(), c.Password()), Host: address(c.ports[1].number)}
	return u.String()
}

// probe queries both ports.
func (c *ClickHouse) probe(ctx context.Context) error {
	if _, err := httpGet(ctx, c.HTTP()+"/ping"); err != nil {
		return err
	}
	if one, err := httpGet(ctx, c.HTTPWithPassword()+"/?query="+url.QueryEscape("SELECT 1")); err != nil {
		return err
	} else if one != "1\n" {
		return fmt.Errorf("SELECT 1 gives %q", one)
	}
	return listens(ctx, c.Addr())
}

// configure writes the server's configuration and returns its path. Both engines read the same, so both behave the
// same. Settings of tables keep their defaults.
func (c *ClickHouse) configure() (string, error) {
	users, config := filepath.Join(c.options.Data, "users.xml"), filepath.Join(c.options.Data, "config.xml")
	if err := os.MkdirAll(c.options.Data, 0o700); err != nil {
		return "", err
	}
	basic := base64.StdEncoding.EncodeToString([]byte(c.User() + ":" + c.Password()))
	text := fmt.Sprintf(serverConfig, escape(filepath.Join(c.options.Data, "db")+"/"), host,
		c.ports[0].number, c.ports[1].number, escape(users), escape(c.Password()), basic)
	session, engine := "", &strings.Builder{}
	for _, e := range engines {
		fmt.Fprintf(engine, "\n        <query>GRANT TABLE ENGINE ON %s</query>", e)
	}
	if c.options.Engine.Binary == "" {
		session = sessionUser
	}
	return config, errors.Join(
		writePrivate(users, fmt.Sprintf(usersConfig, session, c.User(), sha256.Sum256([]byte(c.Password())), rights, engine,
			c.options.Users, c.options.Profiles)),
		writePrivate(config, text),
	)
}

// writePrivate writes a file that only its owner can read, even if an earlier version created it readable.
func writePrivate(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Chmod(path, 0o600)
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder never fails
	return b.String()
}

// serverConfig has no system logs (query_log and others exist only if configured) and only two ports. The pools have a
// server's defaults or nearly; the library's default is 2 threads each.
const serverConfig = `<clickhouse>
  <logger>
    <level>warning</level>
    <console>1</console>
  </logger>
  <path>%[1]s</path>
  <user_files_path>%[1]suser_files/</user_files_path>
  <listen_host>%[2]s</listen_host>
  <tcp_port>%[3]d</tcp_port>
  <http_port>%[4]d</http_port>
  <background_pool_size>16</background_pool_size>
  <background_schedule_pool_size>16</background_schedule_pool_size>
  <user_directories>
    <users_xml><path>%[5]s</path></users_xml>
  </user_directories>
  <access_control_improvements>
    <table_engines_require_grant>true</table_engines_require_grant>
  </access_control_improvements>
  <http_handlers>
    <rule>
      <url>/ping</url>
      <handler><type>ping</type></handler>
    </rule>
    <rule>
      <url>/metrics</url>
      <headers><Authorization>Basic %[7]s</Authorization></headers>
      <handler>
        <type>prometheus</type>
        <metrics>true</metrics>
        <asynchronous_metrics>true</asynchronous_metrics>
        <events>true</events>
        <errors>true</errors>
      </handler>
    </rule>
    <rule>
      <headers><X-ClickHouse-Key>%[6]s</X-ClickHouse-Key></headers>
      <handler><type>dynamic_query_handler</type><query_param_name>query</query_param_name></handler>
    </rule>
    <rule>
      <headers><Authorization>Basic %[7]s</Authorization></headers>
      <handler><type>dynamic_query_handler</type><query_param_name>query</query_param_name></handler>
    </rule>
  </http_handlers>
</clickhouse>
`

// rights are the user's grants: for setup, loaders, people and tests. S3 is the only source of data.
const rights = "SHOW, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE TEMPORARY TABLE, " +
	"CREATE FUNCTION, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, KILL QUERY, BACKUP, SYSTEM MERGES, SYSTEM TTL MERGES, " +
	"SYSTEM SYNC REPLICA, SYSTEM FLUSH LOGS, SYSTEM VIEWS, SYSTEM DROP CACHE, SYSTEM RELOAD CONFIG, " +
	"dictGet, INTROSPECTION, S3"

// engines store data in the server's folder or nowhere. Other engines open files or connections.
var engines = []string{"MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree",
	"CollapsingMergeTree", "VersionedCollapsingMergeTree", "Memory", "Null", "Set", "Join", "Buffer", "Merge", "View",
	"MaterializedView", "GenerateRandom"}

// usersConfig has a server's defaults, which the library changes.
const usersConfig = `<clickhouse>
  <profiles>
    <default>
      <implicit_select>0</implicit_select>
      <allow_introspection_functions>0</allow_introspection_functions>
    </default>
    <session>
      <max_ast_elements>1</max_ast_elements>
      <constraints><max_ast_elements><const/></max_ast_elements></constraints>
    </session>%[7]s
  </profiles>
  <quotas>
    <default/>
  </quotas>
  <users>%[1]s%[6]s
    <%[2]s>
      <password_sha256_hex>%[3]x</password_sha256_hex>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT %[4]s ON *.*</query>%[5]s
      </grants>
    </%[2]s>
  </users>
</clickhouse>
`

// sessionUser runs the library's command line. The library knows no other name and no password for it, and treats it as
// a client from this machine. So this user may do only what sessionQuery does. Its profile rejects every SELECT,
// because a SELECT has more than one element. HTTP cannot reach it.
const sessionUser = `
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>session</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT SYSTEM FAILPOINT ON *.*</query>
      </grants>
    </default>`
