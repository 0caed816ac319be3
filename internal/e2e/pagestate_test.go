package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/testing/docs"
)

// preparations create what a page assumes below a heading.
var preparations = map[string]func(*reader){
	"README.md#Operate": func(r *reader) { r.must("penstock keys add game --name ci") },
	"docs/operate/commands.md#objects": func(r *reader) {
		empty := regexp.MustCompile(`(?m)^events +0 `)
		eventually(r.t, 30*time.Second, "all events are stored", func() error {
			status, err := r.bash("penstock status")
			if err == nil && !empty.MatchString(status) {
				err = errors.New(status)
			}
			return err
		})
		var events strings.Builder
		for i := range 500 {
			fmt.Fprintf(&events, "{\"name\":\"level_end\",\"event_id\":\"game-%d\",\"level\":%[1]d}\n", i)
		}
		r.write("events.ndjson", events.String())
		r.post("$KEY", "@events.ndjson")
		r.bound["events/dt=2026-11-26/hr=00/20261126T005730.352Z-vm-88b332-1795654629173497.parquet"] =
			r.query("SELECT object FROM events WHERE properties.event_id = 'game-7'")
		r.bound["--row 7"] = "--row " + r.query("SELECT object_row FROM events WHERE properties.event_id = 'game-7'")
		r.put("events/handmade.parquet", "hello\n")
		r.put("events/readme.txt", "note\n")
	},
	"docs/operate/commands.md#errors": func(r *reader) {
		r.post("$KEY", `{"nme":"level_start","level":1}`)
		r.post("nobody", `{"name":"tap"}`)
		r.write("broken", "{\"name\":\"tap\",\"user\":\"\xff\xfe\"}")
		r.post("$KEY", "@broken")
	},
	"docs/operate/commands.md#reingest": func(r *reader) {
		r.put("events/handmade.parquet", `{"name":"by_hand"}`)
		r.must("penstock dlq redrive events/handmade.parquet || true")
		r.query("SELECT name FROM events WHERE name = 'by_hand'")
	},
	"docs/operate/commands.md#keys": forgetCI,
	"docs/operate/commands.md#properties": func(r *reader) {
		key, _ := r.lookUp("ps_bsfyKQ…")
		eventually(r.t, 10*time.Second, "the new key", func() error { // receivers read the file every second
			out, err := r.bash(r.adapt(posting(key, `{"name":"hello"}`)))
			if err == nil && !strings.Contains(out, `"accepted":1`) {
				err = errors.New(out)
			}
			return err
		})
		for i, price := range []string{"4.99", "9.99", "20.5", "1.25", "3.75", `"7.49"`} {
			r.post(key, fmt.Sprintf(`{"name":"purchase","country":"IN","price":%s}`, price))
			r.post(key, fmt.Sprintf(`{"name":"level_start","country":"IN","level":%d}`, i+1))
		}
	},
	"docs/operate/commands.md#rollups": func(r *reader) {
		r.post("$KEY", `{"name":"llm_call","model":"m","input_tokens":1,"output_tokens":1}`)
		r.query("SELECT name FROM events WHERE name = 'llm_call'")
		r.must("penstock rollups refresh")
		r.post("$KEY", `{"name":"late"}`) // its day is due
		r.query("SELECT name FROM events WHERE name = 'late'")
	},
	"docs/operate/commands.md#Over HTTP": func(r *reader) {
		r.export = append(r.export, "export TOKEN=$(cat .penstock/admin-token)")
	},
	"docs/guides/projects.md#Manage keys": forgetCI,
	"docs/guides/large-payloads.md#Send files": func(r *reader) {
		video := make([]byte, 716_800)
		for i := range video {
			video[i] = byte(rand.Uint32())
		}
		r.write("run.mp4", string(video))
	},
	"docs/guides/large-payloads.md#Read a blob": func(r *reader) {
		object := r.query("SELECT object FROM events WHERE name = 'run'")
		r.bound["dt=2026-11-22/hr=03/20261122T034512.345Z-game1-17"] =
			strings.TrimSuffix(strings.TrimPrefix(object, "events/"), ".parquet")
	},
	"docs/guides/imports.md#Formats": func(r *reader) {
		r.put("events/imports/crm/bad.ndjson", "{\"name\":\"a\",\"v\":1}\n{\"name\":\"b\",\"v\":NaN}\n")
		r.query("SELECT code FROM errors_once WHERE stage = 'loader' AND code = 'invalid_json'")
	},
	"docs/guides/columns.md#Columns of properties": func(r *reader) {
		path := filepath.Join(r.dir, ".penstock", "penstock.yaml")
		cfg, err := config.Load(path, nil)
		if err == nil {
			columns := docs.Below(r.t, "../../docs/guides/columns.md", "Columns of properties", "yaml")
			err = config.ParseStrict("columns.md", []byte(columns), nil, &cfg)
		}
		if err == nil {
			err = config.Write(path, cfg)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	},
	"docs/operate/runbook.md#A table was dropped": func(r *reader) { r.must(sql("DROP TABLE events SYNC")) },
	"docs/operate/runbook.md#The table refuses rows": func(r *reader) {
		r.must(sql("ALTER TABLE events ADD COLUMN small UInt8 MATERIALIZED accurateCast(ifNull(properties.level.:Int64, 0), 'UInt8')"))
		r.post("$KEY", `{"name":"level_end","event_id":"r2","level":300}`)
	},
	"docs/deploy/one-vm.md#Steps": prepareOneVM,
}

// forgetCI makes the name of the key free that other pages add as well.
func forgetCI(r *reader) {
	r.must("penstock keys revoke game ci; penstock keys revoke game ci.old || true")
}

// oneVM is the bucket and the database of that page, which calls them penstock.
const oneVM = "one-vm"

// prepareOneVM writes the page's configuration with the addresses of the stack, and leaves out what needs root.
func prepareOneVM(r *reader) {
	cfg, err := config.Load(filepath.Join(r.dir, ".penstock", "penstock.yaml"), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.base = portBase(r.t)
	r.bound = map[string]string{"/etc/penstock": r.dir + "/etc"}
	r.export = []string{"sudo() { :; }", fmt.Sprintf("export PENSTOCK_ADMIN_LISTEN=127.0.0.1:%d", r.base+1)}
	text := docs.Below(r.t, "../../docs/deploy/one-vm.md", "Steps", "yaml")
	for from, to := range map[string]string{"https://s3.example.com": cfg.Storage.Endpoint, "127.0.0.1:9000": cfg.ClickHouse.Addresses[0],
		"/var/lib/penstock": r.dir + "/var", "bucket: penstock": "bucket: " + oneVM,
		"  user: penstock": "  database: " + oneVM + "\n  user: " + cfg.ClickHouse.User} {
		if !strings.Contains(text, from) {
			r.t.Errorf("the page's configuration has no %q", from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	r.write("etc/penstock.yaml", r.adapt(text))
	r.write("etc/secrets.env", fmt.Sprintf("S3_ACCESS_KEY=%s\nS3_SECRET_KEY=%s\nCLICKHOUSE_PASSWORD=%s\n",
		cfg.Storage.AccessKey, cfg.Storage.SecretKey, cfg.ClickHouse.Password))
}

// startRoles starts each line as a process that runs until the test of the page ends, and waits until it is ready.
func (r *reader) startRoles(lines string) {
	r.t.Helper()
	for i, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		cmd := exec.Command("bash", "-c", strings.Join(r.export, "\n")+"\nexec env "+r.adapt(line))
		cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "PATH="+r.dir+":"+os.Getenv("PATH"))
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				r.t.Errorf("%s: %v\n%s", line, err, &log)
			}
		})
		eventually(r.t, 30*time.Second, line, func() error {
			resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", r.base+1+i))
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("/readyz: %s", resp.Status)
			}
			return nil
		})
		r.ran++
	}
}

// must runs commands that have to succeed.
func (r *reader) must(commands string) {
	r.t.Helper()
	if _, err := r.bash(r.adapt(commands)); err != nil {
		r.t.Fatal(err)
	}
}

// posting is the command that sends a body with a key.
func posting(key, body string) string {
	return fmt.Sprintf("curl -sS http://127.0.0.1:8080/v1/events -H \"Authorization: Bearer %s\" --data-binary '%s'", key, body)
}

// post sends a body with a key, whatever the answer is.
func (r *reader) post(key, body string) {
	r.t.Helper()
	r.must(posting(key, body))
}

// put puts an object into the bucket.
func (r *reader) put(key, body string) {
	r.t.Helper()
	cfg, err := config.Load(filepath.Join(r.dir, ".penstock", "penstock.yaml"), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := storeAt(cfg.Storage.Endpoint, cfg.Storage.AccessKey, cfg.Storage.SecretKey).PutObject(r.t.Context(),
		&s3.PutObjectInput{Bucket: aws.String("penstock"), Key: &key, Body: strings.NewReader(body)}); err != nil {
		r.t.Fatal(err)
	}
}

// sql is the command that sends a statement.
func sql(statement string) string {
	return fmt.Sprintf(`curl -sS --fail-with-body -u "penstock:$(cat .penstock/clickhouse-password)" `+
		`'http://127.0.0.1:8123/?database=penstock' -d %q`, statement)
}

// query waits for the first row of a question.
func (r *reader) query(question string) (row string) {
	r.t.Helper()
	eventually(r.t, 30*time.Second, question, func() (err error) {
		row, err = r.bash(r.adapt(sql(question)))
		if row, _, _ = strings.Cut(row, "\n"); err == nil && row == "" {
			err = fmt.Errorf("no row")
		}
		return err
	})
	return row
}
