package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Each value has its source, and no secret is printed.
func TestConfigCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("PENSTOCK_BATCHER_ROLL_AGE", "30s")
	t.Setenv("PENSTOCK_CLICKHOUSE_PASSWORD", "S3cretPw")
	text := "storage:\n  secret_key: S3cretPw\n  endpoint: http://store:9000\nqueue:\n  url: nats://u:S3cretPw@h:4222\n" +
		"receiver:\n  keys:\n    - {project: game, sha256: " + somehash + ", secret: S3cretPw}\n"
	if err := os.WriteFile("penstock.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, err := said(t, "config", "check")
	if err != nil || errs != "" || strings.Contains(out, "S3cretPw") {
		t.Errorf("%v %s\n%s", err, errs, out)
	}
	lines := map[string]bool{}
	for line := range strings.SplitSeq(out, "\n") {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{
		"process.drain 30s default",
		"batcher.roll_age 30s PENSTOCK_BATCHER_ROLL_AGE",
		"storage.endpoint http://store:9000 penstock.yaml:3",
		"storage.secret_key [HIDDEN] penstock.yaml:2",
		"queue.url nats://u:[HIDDEN]@h:4222 penstock.yaml:5",
		"queue.password \"\" default",
		"receiver.keys[0].project game penstock.yaml:8",
		"receiver.keys[0].secret [HIDDEN] penstock.yaml:8",
		"clickhouse.password [HIDDEN] PENSTOCK_CLICKHOUSE_PASSWORD",
		"receiver.cors_origins [*] default",
		"penstock.yaml: valid, 8 values set",
	} {
		if !lines[want] {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
	if out, _, err := said(t, "config", "check", "--changed", "--json"); err != nil || strings.Count(out, "\n") != 8 ||
		!strings.Contains(out, `{"field":"batcher.roll_age","value":"30s","source":"PENSTOCK_BATCHER_ROLL_AGE"}`+"\n") {
		t.Errorf("--changed --json: %v\n%s", err, out)
	}
	t.Setenv("PENSTOCK_BATCHER_ROLL_AGE", "soon")
	if out, _, err := said(t, "config", "check"); err == nil || out != "" ||
		err.Error() != `configuration: batcher.roll_age "soon" (from PENSTOCK_BATCHER_ROLL_AGE): `+
			"want a duration, as 200ms, 90s, 5m or 24h" {
		t.Errorf("a wrong value: %v\n%s", err, out)
	}
}

func TestConfigSchema(t *testing.T) {
	out, _, err := said(t, "config", "schema")
	var schema struct{ Properties map[string]any }
	if err != nil || json.Unmarshal([]byte(out), &schema) != nil || schema.Properties["batcher"] == nil {
		t.Errorf("%v\n%.500s", err, out)
	}
}

// Without a configuration no role starts, and no command asks servers that nobody has named.
func TestNoConfiguration(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, _ := os.Getwd()
	want := "no configuration: " + dir + " has no penstock.yaml, and no variable PENSTOCK_SECTION_FIELD is set. " +
		"Copy penstock.example.yaml there, or name a file with --config"
	t.Setenv("PENSTOCK_RECEIVER_SERVICE_HOST", "10.0.0.1") // of Kubernetes, no setting
	for _, command := range []string{"receive", "load", "setup", "status", "errors list", "verify"} {
		if _, _, err := said(t, strings.Fields(command)...); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", command, err, want)
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
	if out, _, err := said(t, "config", "check"); err != nil || !strings.Contains(out, "no file: valid, 0 values set") {
		t.Errorf("config check: %v\n%s", err, out)
	}
}
