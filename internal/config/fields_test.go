package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// leaf is a field that holds a value, or a list.
type leaf struct {
	name  string // as admin.tls.cert
	value reflect.Value
	tag   reflect.StructTag
}

// leaves are all fields of a configuration but those of lists.
func leaves(cfg *Config) (all []leaf) {
	var add func(v reflect.Value, path string, tag reflect.StructTag)
	add = func(v reflect.Value, path string, tag reflect.StructTag) {
		if v.Kind() != reflect.Struct {
			all = append(all, leaf{path, v, tag})
			return
		}
		for f := range v.Type().Fields() {
			add(v.FieldByIndex(f.Index), join(path, f.Tag.Get("yaml")), f.Tag)
		}
	}
	add(reflect.ValueOf(cfg).Elem(), "", "")
	return all
}

// variableOf is the environment variable of a field.
func variableOf(field string) string {
	return "PENSTOCK_" + strings.ToUpper(strings.ReplaceAll(field, ".", "_"))
}

// other is another valid value of a field than its default, as text. Empty: it depends on other fields.
func other(l leaf) string {
	if known := strings.Fields(l.tag.Get("enum")); len(known) > 0 {
		for _, k := range known {
			if k != l.value.String() && !(l.name == "schemas.mode") {
				return k
			}
		}
		return ""
	}
	switch l.name {
	case "storage.endpoint", "clickhouse.storage_endpoint", "tracing.endpoint":
		return "http://other:1"
	case "storage.bucket":
		return "other-bucket"
	case "clickhouse.addresses":
		return "[other:1]"
	case "status.admins":
		return "['http://other:1']"
	case "receiver.trusted_proxies":
		return "[10.0.0.0/8]"
	case "receiver.client_ip_header", "receiver.country_header": // they need trusted_proxies
		return ""
	case "receiver.max_event", "batcher.max_segment": // they have a limit
		return "1MiB"
	case "batcher.max_disk": // and this one is it
		return "9GiB"
	}
	if strings.Contains(l.name, ".tls.") { // a certificate needs its key
		return ""
	}
	switch l.value.Interface().(type) {
	case Duration:
		return "7s"
	case Size:
		return "9MiB"
	case bool:
		return fmt.Sprint(!l.value.Bool())
	case string:
		return "other"
	case []string:
		return "[other]"
	case int, int64:
		return "7"
	case float64:
		return "0.5"
	}
	return "" // a list of sections
}

// Every field can be set by the file, by its variable, and a text by the file that a variable names. Nothing else
// changes, and each says where it comes from.
func TestEveryFieldCanBeSet(t *testing.T) {
	dir := t.TempDir()
	defaults := Default()
	n := 0
	for i, l := range leaves(&defaults) {
		text := other(l)
		if text == "" {
			continue
		}
		n++
		path := strings.Split(l.name, ".")
		file := filepath.Join(dir, fmt.Sprintf("%d.yaml", i))
		yaml := path[0] + ":\n  " + strings.Join(path[1:], ": {") + ": " + text + strings.Repeat("}", len(path)-2) + "\n"
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		value := filepath.Join(dir, fmt.Sprintf("%d.value", i))
		if err := os.WriteFile(value, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		variable := variableOf(l.name)
		ways := []struct{ path, env, source string }{
			{file, "", file + ":2"},
			{"", variable + "=" + text, variable},
			{file, variable + "=" + text, variable},
		}
		if _, isText := l.value.Interface().(string); isText && l.name != "admin.token" && len(path) == 2 {
			// admin.token_file is a field, and a section within a section has no such variables.
			ways = append(ways, struct{ path, env, source string }{"", variable + "_FILE=" + value, variable + "_FILE"})
		}
		for _, way := range ways {
			cfg, sources, err := LoadSources(way.path, []string{way.env})
			if err != nil {
				t.Errorf("%s by %+v: %v", l.name, way, err)
				continue
			}
			if got := sources.Of(l.name); got != way.source {
				t.Errorf("%s by %+v: source %q, want %q", l.name, way, got, way.source)
			}
			for j, set := range leaves(&cfg) {
				changed := !reflect.DeepEqual(set.value.Interface(), leaves(&defaults)[j].value.Interface())
				if changed != (j == i) {
					t.Errorf("%s by %+v: %s is %v", l.name, way, set.name, set.value)
				}
			}
		}
	}
	if n < 80 {
		t.Errorf("%d fields were set, want nearly all", n)
	}
}

// Every value that a description names is accepted, and no number is accepted below its least.
func TestLimitsOfEveryField(t *testing.T) {
	defaults := Default()
	refused := func(field, value string) string {
		_, err := Load("", []string{variableOf(field) + "=" + value, "PENSTOCK_SCHEMAS_DIR=/schemas",
			"PENSTOCK_QUEUE_CLOUDFLARE_ACCOUNT=a", "PENSTOCK_QUEUE_CLOUDFLARE_API_TOKEN=t"})
		if err == nil {
			return ""
		}
		return err.Error()
	}
	for _, l := range leaves(&defaults) {
		for _, known := range strings.Fields(l.tag.Get("enum")) {
			if why := refused(l.name, known); why != "" {
				t.Errorf("%s %s is refused: %s", l.name, known, why)
			}
			if why := refused(l.name, known+"x"); !strings.Contains(why, l.name) || !strings.Contains(why, known) {
				t.Errorf("%s %sx: got %q", l.name, known, why)
			}
		}
		if !l.value.CanInt() {
			continue
		}
		zero := map[bool]string{true: "0s", false: "0"}[l.value.Type() == reflect.TypeFor[Duration]()]
		if why := refused(l.name, zero); (why == "") != (l.tag.Get("min") == "0") ||
			why != "" && !strings.Contains(why, l.name+" "+zero) {
			t.Errorf("%s %s: got %q", l.name, zero, why)
		}
	}
	for field, value := range map[string]string{"process.log_level": "INFO", "batcher.format": "ndjson.zst"} {
		if why := refused(field, value); why != "" {
			t.Errorf("%s %s is refused: %s", field, value, why)
		}
	}
}

// What editors accept by the schema, the program reads, and the other way round.
func TestSchemaAgreesWithTheProgram(t *testing.T) {
	schema := compiled(t)
	for _, text := range []string{
		"", "receiver:", "receiver: {}", "receiver: []", "receiver: {listen: x}", "receiver: {lisen: x}",
		"batcher: {roll_age: 5s}", "batcher: {roll_age: 1h30m}", "batcher: {roll_age: 5}", "batcher: {roll_age: [5s]}",
		"batcher: {max_disk: 9GiB}", "batcher: {max_disk: 9 GiB}", "batcher: {max_disk: 9GB}", "batcher: {max_disk: 9000000000}",
		"batcher: {uploads: 3}", "batcher: {uploads: 1.5}", "batcher: {uploads: many}", "batcher: {uploads: 0}",
		"batcher: {format: ndjson}", "batcher: {format: ndjson.zst}", "batcher: {format: csv}", "process: {log_level: INFO}",
		"storage: {path_style: false}", "storage: {path_style: 1}",
		"clickhouse: {addresses: ['a:1', 'b:2']}", "clickhouse: {addresses: {a: 1}}",
		"clickhouse: {columns: [{name: level, type: Int64}]}", "clickhouse: {columns: [{nme: level}]}",
		"clickhouse: {tls: false}", "clickhouse: {tls: {ca: [x]}}", "clickhouse: {tls: {enabled: true}}",
		"llm: {prices: [{model: a, input: 1, output: 2}]}", "llm: {prices: [{model: a, input: free}]}",
		"imports: [{prefix: events/a/, name: [a, b], keep: true}]", "imports: [{prefix: events/a/, keep: perhaps}]",
		"errors: {anonymous_rate: 0}", "sweep: {full_every: 0s}", "status: {tls: {ca: x}}", "nothing: {}",
	} {
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		if doc == nil {
			doc = map[string]any{} // an empty file
		}
		bySchema := schema.Validate(doc)
		cfg := Default()
		byProgram := ParseStrict("", []byte(text), nil, &cfg)
		if byProgram == nil {
			cfg.simplify()
			byProgram = cfg.check(nil)
		}
		if (bySchema == nil) != (byProgram == nil) {
			t.Errorf("%s: the schema says %v, the program %v", text, bySchema, byProgram)
		}
	}
}

// Whatever a file holds, reading it ends with a configuration that works when it is written and read, or with an error
// that names a place.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{"", "receiver: {listen: :1}", "a: &a {b: *a}", "clickhouse: {tls: true}", "- x", "? {a: b}\n: c",
		"batcher: {roll_age: 1h, max_disk: 9GiB}", "llm: {prices: [{model: a, cached_input: 1}]}", "storage: &s {tls: {ca: ${X}}}",
		"receiver: {keys: [{project: a, secret: [x]}]}", "imports: [{prefix: events/, name: {}}]", "<<: {a: b}", "!!binary a"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg := Default()
		sources, err := parse("FILE", text, map[string]string{"X": "1"}, &cfg)
		if err != nil {
			if !strings.Contains(err.Error(), "FILE:") && !strings.Contains(err.Error(), "yaml: ") {
				t.Errorf("%q: no place in %v", text, err)
			}
			return
		}
		if cfg.check(sources) != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "penstock.yaml")
		if err := Write(path, cfg); err != nil {
			t.Fatal(err)
		}
		again, err := Load(path, nil)
		if err != nil {
			t.Fatalf("%q was read, and is refused as it was written: %v", text, err)
		}
		want, _ := yaml.Marshal(cfg)
		if got, _ := yaml.Marshal(again); string(got) != string(want) {
			t.Errorf("%q: got\n%s\nwant\n%s", text, got, want)
		}
	})
}

// A client of an admin listener trusts the CA of the files, and refuses every server while they cannot be read.
func TestHTTPClient(t *testing.T) {
	plain := ClientTLS{}.HTTPClient()
	if plain.Transport == nil || (ClickHouseTLS{Enabled: true, CA: "/none"}).Config(discarded()) == nil {
		t.Error("no transport, or no configuration for a CA that is gone")
	}
	gone := ClientTLS{CA: "/does/not/exist.pem"}.HTTPClient()
	gone.Timeout = time.Second
	if _, err := gone.Get("https://127.0.0.1:1/"); err == nil {
		t.Error("a server without a CA is asked")
	}
	if err := WritePrivate(filepath.Join(t.TempDir(), "none", "x"), nil); err == nil {
		t.Error("a file in a folder that does not exist was written")
	}
}

func discarded() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Networks of proxies, and the headers that only they may set.
func TestProxies(t *testing.T) {
	r := Receiver{TrustedProxies: []string{"10.0.0.0/8", "fd00::/8", "192.0.2.7/32"}}
	got, err := r.Proxies()
	if err != nil || len(got) != 3 || got[1].String() != "fd00::/8" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, wrong := range []string{"10.0.0.0", "proxy", "10.0.0.0/33", ""} {
		r.TrustedProxies = []string{wrong}
		if _, err := r.Proxies(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q: want a network", wrong)) {
			t.Errorf("%q: got %v", wrong, err)
		}
	}
	for header, want := range map[string]string{"X-Real-IP": "", "x_real_ip": "", "a b": "want the name of a header", "é": "want the name"} {
		_, err := Load("", []string{"PENSTOCK_RECEIVER_CLIENT_IP_HEADER=" + header, "PENSTOCK_RECEIVER_TRUSTED_PROXIES=10.0.0.0/8"})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", header, err, want)
		}
	}
}

// A key names its project, hash, and least durability.
func TestKeyOfTheConfiguration(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		key  Key
		want string
	}{
		{Key{SHA256: hash}, ""},
		{Key{SHA256: strings.ToUpper(hash), MinDurability: "object"}, ""},
		{Key{SHA256: hash[:62]}, "sha256: want 64 hex digits"},
		{Key{SHA256: strings.Repeat("zz", 32)}, "sha256: want 64 hex digits"},
		{Key{SHA256: hash, MinDurability: "tape"}, `min_durability "tape": memory, disk or object`},
	} {
		got, least, err := tt.key.Parse()
		if tt.want == "" && (err != nil || got[0] != 0xab || (least == 0) != (tt.key.MinDurability == "")) ||
			tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: got %x, %v, %v, want %q", tt.key, got, least, err, tt.want)
		}
	}
}

// A price that is absent, and columns whose path is their name, are completed.
func TestTables(t *testing.T) {
	cached := 0.5
	cfg := Config{ClickHouse: ClickHouse{Columns: []Column{{Name: "level", Type: "Int64"}, {Name: "a", Path: "b.c", Type: "UUID"}}},
		LLM: LLM{Prices: []Price{{Model: "a", Input: 1, Output: 2}, {Model: "a", Provider: "p", Cached: &cached}}}}
	columns, err := cfg.TableColumns()
	if err != nil || len(columns) != 2 || columns[0].Path != "level" || columns[1].Path != "b.c" {
		t.Errorf("got %+v, %v", columns, err)
	}
	prices, err := cfg.TablePrices()
	if err != nil || len(prices) != 2 || prices[0].Cached != nil || *prices[1].Cached != 0.5 {
		t.Errorf("got %+v, %v", prices, err)
	}
	negative := -1.0
	for _, wrong := range []Price{{}, {Model: "a b"}, {Model: "ä"}, {Model: "a", Cached: &negative}, {Model: "a", Output: -1}} {
		cfg.LLM.Prices = []Price{wrong}
		if _, err := cfg.TablePrices(); err == nil || !strings.Contains(err.Error(), "llm.prices[0]") {
			t.Errorf("%+v: got %v", wrong, err)
		}
	}
}
