package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/receiver"
)

// Config is the one file of all roles. penstock.example.yaml beside the README
// holds every field with its unit and default; a test holds the two together.
type Config struct {
	Process    ProcessConfig    `yaml:"process"`
	Admin      AdminConfig      `yaml:"admin"`
	Receiver   ReceiverConfig   `yaml:"receiver"`
	Batcher    BatcherConfig    `yaml:"batcher"`
	Errors     ErrorsConfig     `yaml:"errors"`
	Storage    StorageConfig    `yaml:"storage"`
	Queue      QueueConfig      `yaml:"queue"`
	ClickHouse ClickHouseConfig `yaml:"clickhouse"`
	Loader     LoaderConfig     `yaml:"loader"`
	Sweep      SweepConfig      `yaml:"sweep"`
	LLM        LLMConfig        `yaml:"llm"`
	Schemas    SchemasConfig    `yaml:"schemas"`
	Status     StatusConfig     `yaml:"status"`
	Imports    []ImportConfig   `yaml:"imports"`
}

type ProcessConfig struct {
	Drain     Duration `yaml:"drain"`
	LogLevel  string   `yaml:"log_level"`
	LogFormat string   `yaml:"log_format"`
}

type AdminConfig struct {
	Listen    string          `yaml:"listen"`
	Token     string          `yaml:"token"`
	TokenFile string          `yaml:"token_file"` // read again when it changes
	Hosts     []string        `yaml:"hosts"`      // names in the Host header, beside localhost and addresses; "*": any
	TLS       ServerTLSConfig `yaml:"tls"`
}

// ServerTLSConfig names the PEM files of a listener. Without a certificate it serves plain HTTP.
type ServerTLSConfig struct {
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client_ca"`
}

// ClientTLSConfig names the PEM files for connections to a server.
type ClientTLSConfig struct {
	CA         string `yaml:"ca"`
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	ServerName string `yaml:"server_name"`
}

// ClickHouseTLSConfig is "true", "false" or a mapping.
type ClickHouseTLSConfig struct {
	Enabled    bool   `yaml:"enabled"`
	CA         string `yaml:"ca"`
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	ServerName string `yaml:"server_name"`
}

func (c ClickHouseTLSConfig) files() ClientTLSConfig {
	return ClientTLSConfig{CA: c.CA, Cert: c.Cert, Key: c.Key, ServerName: c.ServerName}
}

func (c *ClickHouseTLSConfig) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&c.Enabled)
	}
	type fields ClickHouseTLSConfig
	return n.Decode((*fields)(c))
}

type ReceiverConfig struct {
	Listen         string      `yaml:"listen"`
	OTLPGRPCListen string      `yaml:"otlp_grpc_listen"`
	Name           string      `yaml:"name"`
	Durability     string      `yaml:"durability"`
	Keys           []KeyConfig `yaml:"keys"`
	Projects       string      `yaml:"projects"`
	MaxBody        Size        `yaml:"max_body"`
	MaxDecoded     Size        `yaml:"max_decoded"`
	SmallBody      Size        `yaml:"small_body"`
	MaxEvent       Size        `yaml:"max_event"`
	MaxEvents      int         `yaml:"max_events"`
	BlobThreshold  Size        `yaml:"blob_threshold"`
	MaxDepth       int         `yaml:"max_depth"`
	MaxMemory      Size        `yaml:"max_memory"`
	MaxSpool       Size        `yaml:"max_spool"`
	ReadTimeout    Duration    `yaml:"read_timeout"`
	RetryAfter     Duration    `yaml:"retry_after"`
	Origins        []string    `yaml:"cors_origins"`
	TrustedProxies []string    `yaml:"trusted_proxies"`
	ClientIPHeader string      `yaml:"client_ip_header"`
	CountryHeader  string      `yaml:"country_header"`
	SessionReplay  bool        `yaml:"session_replay"`
	MaxConnections int         `yaml:"max_connections"`
	MaxKeyless     int         `yaml:"max_keyless"`

	TLS ServerTLSConfig `yaml:"tls"`
}

type KeyConfig struct {
	Project       string `yaml:"project"`
	SHA256        string `yaml:"sha256"`
	Secret        string `yaml:"secret"`
	MinDurability string `yaml:"min_durability"`
}

type BatcherConfig struct {
	Dir           string   `yaml:"dir"`
	Format        string   `yaml:"format"`
	RollAge       Duration `yaml:"roll_age"`
	RollBytes     Size     `yaml:"roll_bytes"`
	RollRows      int64    `yaml:"roll_rows"`
	MaxSegment    Size     `yaml:"max_segment"`
	MaxDisk       Size     `yaml:"max_disk"`
	ObjectWait    Duration `yaml:"object_wait"`
	ObjectTimeout Duration `yaml:"object_timeout"`
	Uploads       int      `yaml:"uploads"`
	PutTimeout    Duration `yaml:"put_timeout"`
	BackoffMin    Duration `yaml:"backoff_min"`
	BackoffMax    Duration `yaml:"backoff_max"`
}

type ErrorsConfig struct {
	MaxDisk       Size `yaml:"max_disk"`
	MaxMemory     Size `yaml:"max_memory"`
	BlobThreshold Size `yaml:"blob_threshold"`
	AnonymousRate Size `yaml:"anonymous_rate"`
}

type StorageConfig struct {
	Endpoint  string `yaml:"endpoint"`
	Region    string `yaml:"region"`
	Bucket    string `yaml:"bucket"`
	AccessKey string `yaml:"access_key"`
	SecretKey string `yaml:"secret_key"`
	PathStyle bool   `yaml:"path_style"`
	Notify    string `yaml:"notify"`
	NotifyARN string `yaml:"notify_arn"`

	TLS ClientTLSConfig `yaml:"tls"`
}

type QueueConfig struct {
	URL      string   `yaml:"url"`
	User     string   `yaml:"user"`
	Password string   `yaml:"password"`
	Creds    string   `yaml:"creds"`
	AckWait  Duration `yaml:"ack_wait"`
	MaxAge   Duration `yaml:"max_age"`
	MaxBytes Size     `yaml:"max_bytes"`
	Replicas int      `yaml:"replicas"`

	TLS ClientTLSConfig `yaml:"tls"`
}

type ClickHouseConfig struct {
	Addresses []string       `yaml:"addresses"`
	Database  string         `yaml:"database"`
	User      string         `yaml:"user"`
	Password  string         `yaml:"password"`
	Timeout   Duration       `yaml:"timeout"`
	Columns   []ColumnConfig `yaml:"columns"`

	StorageEndpoint string `yaml:"storage_endpoint"`

	TLS ClickHouseTLSConfig `yaml:"tls"`
}

type ColumnConfig struct {
	Name string `yaml:"name"`
	Path string `yaml:"path"`
	Type string `yaml:"type"`
}

type LoaderConfig struct {
	Name        string   `yaml:"name"`
	Workers     int      `yaml:"workers"`
	Dir         string   `yaml:"dir"`
	BackoffMin  Duration `yaml:"backoff_min"`
	BackoffMax  Duration `yaml:"backoff_max"`
	MaxAttempts int      `yaml:"max_attempts"`

	MaxUnfinished int `yaml:"max_unfinished"`
}

type SweepConfig struct {
	Every Duration `yaml:"every"`
	Span  Duration `yaml:"span"`
	Grace Duration `yaml:"grace"`
	Poll  Duration `yaml:"poll"`

	FullEvery Duration `yaml:"full_every"` // 0: never
	FullRate  int      `yaml:"full_rate"`  // list requests a second
}

type SchemasConfig struct {
	Dir  string `yaml:"dir"`
	Mode string `yaml:"mode"`
}

type LLMConfig struct {
	Prices []PriceConfig `yaml:"prices"`
}

type PriceConfig struct {
	Model    string   `yaml:"model"`
	Provider string   `yaml:"provider"`
	Input    float64  `yaml:"input"`
	Cached   *float64 `yaml:"cached_input"`
	Output   float64  `yaml:"output"`
}

type StatusConfig struct {
	Admins []string        `yaml:"admins"`
	TLS    ClientTLSConfig `yaml:"tls"`
}

// defaultConfig is what holds where the file says nothing.
func defaultConfig() Config {
	return Config{
		Process: ProcessConfig{Drain: Duration(30 * time.Second), LogLevel: "info", LogFormat: "text"},
		Admin:   AdminConfig{Listen: "127.0.0.1:8081"},
		Receiver: ReceiverConfig{
			Listen: ":8080", Durability: "disk",
			MaxBody: 256 << 20, MaxDecoded: 256 << 20, SmallBody: 4 << 20, MaxEvent: 100 << 20, MaxEvents: 50_000, BlobThreshold: 64 << 10, MaxDepth: 64, MaxMemory: 96 << 20, MaxSpool: 4 << 30,
			ReadTimeout: Duration(30 * time.Second), RetryAfter: Duration(5 * time.Second), Origins: []string{"*"},
			MaxConnections: 10_000, MaxKeyless: 128,
		},
		Batcher: BatcherConfig{
			Dir: "penstock-data", Format: "parquet",
			RollAge: Duration(90 * time.Second), RollBytes: 64 << 20, RollRows: 2_000_000, MaxSegment: 512 << 20, MaxDisk: 8 << 30,
			ObjectWait: Duration(200 * time.Millisecond), ObjectTimeout: Duration(30 * time.Second),
			Uploads: 2, PutTimeout: Duration(2 * time.Minute), BackoffMin: Duration(200 * time.Millisecond), BackoffMax: Duration(20 * time.Second),
		},
		Errors:  ErrorsConfig{MaxDisk: 1 << 30, MaxMemory: 48 << 20, BlobThreshold: 1 << 20, AnonymousRate: 64 << 10},
		Storage: StorageConfig{Region: "us-east-1", Bucket: "penstock", PathStyle: true, Notify: "storage", NotifyARN: "arn:minio:sqs::{PIPELINE}:nats"},
		Queue: QueueConfig{URL: "nats://127.0.0.1:4222", AckWait: Duration(20 * time.Second), MaxAge: Duration(7 * 24 * time.Hour),
			MaxBytes: 1 << 30, Replicas: 1},
		ClickHouse: ClickHouseConfig{Addresses: []string{"127.0.0.1:9000"}, Database: "penstock", User: "default", Timeout: Duration(5 * time.Minute)},
		Loader: LoaderConfig{Workers: 2,
			BackoffMin: Duration(time.Second), BackoffMax: Duration(5 * time.Minute), MaxAttempts: 10, MaxUnfinished: 5},
		Schemas: SchemasConfig{Mode: "off"},
		Sweep: SweepConfig{Every: Duration(5 * time.Minute), Span: Duration(7 * 24 * time.Hour),
			Grace: Duration(2 * time.Minute), Poll: Duration(10 * time.Second),
			FullEvery: Duration(24 * time.Hour), FullRate: 10},
	}
}

// loadConfig reads the file (none where path is empty) over the defaults, and
// the environment over the file.
func loadConfig(path string, environ []string) (Config, error) {
	cfg := defaultConfig()
	env := environment(environ)
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return cfg, fmt.Errorf("config: %w", err)
		}
		if err := parseStrict(text, env, &cfg); err != nil {
			return cfg, fmt.Errorf("config %s: %w", path, err)
		}
	}
	if err := overrideConfig(env, &cfg); err != nil {
		return cfg, fmt.Errorf("config: %w", err)
	}
	if err := cfg.check(); err != nil {
		return cfg, fmt.Errorf("config %s: %w", path, err)
	}
	return cfg, nil
}

// parseStrict reads a YAML file over what cfg, a pointer to a struct, holds.
func parseStrict(text []byte, env map[string]string, cfg any) error {
	var doc yaml.Node
	if err := decodeYAML(text, &doc); err != nil {
		return err
	}
	if len(doc.Content) == 0 {
		return nil // an empty file
	}
	root := doc.Content[0]
	if err := checkKeys(root, reflect.TypeOf(cfg).Elem(), ""); err != nil {
		return err
	}
	if err := expand(root, env); err != nil {
		return err
	}
	return root.Decode(cfg)
}

// decodeYAML reads a text of one YAML document. It refuses a second one, which the YAML library would ignore.
func decodeYAML(text []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(into); err == io.EOF {
		return nil
	} else if err != nil {
		return err
	}
	var second yaml.Node
	if err := d.Decode(&second); err == io.EOF {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf(`line %d: a second YAML document begins here, and only one is read: remove the "---" or the document`,
		second.Line)
}

// checkKeys refuses a key that no field has, and one that stands twice.
func checkKeys(n *yaml.Node, t reflect.Type, path string) error {
	if t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			if err := checkKeys(item, t.Elem(), path); err != nil {
				return err
			}
		}
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Map && n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if err := checkKeys(n.Content[i+1], t.Elem(), path+n.Content[i].Value+"."); err != nil {
				return err
			}
		}
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	if n.Kind == yaml.ScalarNode && t == reflect.TypeFor[ClickHouseTLSConfig]() {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		if n.Tag == "!!null" {
			return nil
		}
		if path == "" {
			return fmt.Errorf("line %d: want fields, as \"name: value\", and not a list or a single value", n.Line)
		}
		return fmt.Errorf("line %d: %s: want fields below it", n.Line, strings.TrimSuffix(path, "."))
	}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		field, ok := fieldOf(t, key.Value)
		if !ok {
			return fmt.Errorf("line %d: unknown field %s%s%s", key.Line, path, key.Value, didYouMean(t, key.Value))
		}
		if err := checkKeys(n.Content[i+1], field.Type, path+key.Value+"."); err != nil {
			return err
		}
	}
	return nil
}

func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if f.Tag.Get("yaml") == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

func didYouMean(t reflect.Type, name string) string {
	var known []string
	for f := range t.Fields() {
		known = append(known, f.Tag.Get("yaml"))
	}
	return " (known: " + strings.Join(known, ", ") + ")"
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

var errUnset = errors.New("is not set in the environment")

// expand puts the environment's values in place of ${NAME}, in values only.
func expand(n *yaml.Node, env map[string]string) error {
	if n.Kind == yaml.ScalarNode {
		var missing string
		value := variable.ReplaceAllStringFunc(n.Value, func(s string) string {
			v, ok := env[s[2:len(s)-1]]
			if !ok {
				missing = s
			}
			return v
		})
		if missing != "" {
			return fmt.Errorf("line %d: %s %w", n.Line, missing, errUnset)
		}
		if value != n.Value {
			n.Value = value
			if n.Style == 0 {
				n.Tag = "" // a number from the environment is a number
			}
		}
	}
	for _, c := range n.Content {
		if err := expand(c, env); err != nil {
			return err
		}
	}
	return nil
}

// overrideConfig takes PENSTOCK_SECTION_FIELD, in YAML (lists also as a, b), and for a section's own texts
// PENSTOCK_SECTION_FIELD_FILE, the name of a file that holds the value.
func overrideConfig(env map[string]string, cfg *Config) error {
	known := overrides(cfg)
	for name, value := range env {
		if isOverride(name) && !isKnown(known, name) && !serviceLink.MatchString(name+"="+value) {
			return fmt.Errorf("environment variable %s sets no field of the configuration; correct or unset it", name)
		}
	}
	for name, target := range known {
		if file, ok := env[name+"_FILE"]; ok && target.hasFile {
			text, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("%s_FILE: %w", name, err)
			}
			target.SetString(string(bytes.TrimRight(text, "\r\n")))
		}
	}
	// A whole before its parts: PENSTOCK_RECEIVER_TLS before PENSTOCK_RECEIVER_TLS_CERT.
	for _, name := range slices.Sorted(maps.Keys(known)) {
		target := known[name]
		text, ok := env[name]
		if !ok {
			continue
		}
		if target.Kind() == reflect.String {
			target.SetString(text)
			continue
		}
		if target.Type() == reflect.TypeFor[[]string]() && !strings.HasPrefix(strings.TrimSpace(text), "[") {
			text = "[" + text + "]" // a, b
		}
		if err := decodeYAML([]byte(text), target.Addr().Interface()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// override is a field that a variable can set.
type override struct {
	reflect.Value
	hasFile bool // by PENSTOCK_SECTION_FIELD_FILE too
}

// overrides are all fields by their variables' names. Fields of a section within a section count themselves as well.
func overrides(cfg *Config) map[string]override {
	all := map[string]override{}
	root := reflect.ValueOf(cfg).Elem()
	for section := range root.Type().Fields() {
		for f := range sectionFields(section) {
			name := "PENSTOCK_" + strings.ToUpper(section.Tag.Get("yaml")+"_"+f.Tag.Get("yaml"))
			v := root.FieldByIndex(section.Index).FieldByIndex(f.Index)
			all[name] = override{v, f.Type.Kind() == reflect.String}
			for inner := range sectionFields(f) {
				all[name+"_"+strings.ToUpper(inner.Tag.Get("yaml"))] = override{v.FieldByIndex(inner.Index), false}
			}
		}
	}
	for name, o := range all {
		if _, taken := all[name+"_FILE"]; taken { // admin.token_file is a field itself
			o.hasFile = false
			all[name] = o
		}
	}
	return all
}

func isKnown(known map[string]override, name string) bool {
	if _, ok := known[name]; ok {
		return true
	}
	text, ok := strings.CutSuffix(name, "_FILE")
	return ok && known[text].hasFile
}

// sectionFields are a section's fields; a section that is a list has none that a
// variable could override.
func sectionFields(section reflect.StructField) iter.Seq[reflect.StructField] {
	if section.Type.Kind() != reflect.Struct {
		return func(func(reflect.StructField) bool) {}
	}
	return section.Type.Fields()
}

// isOverride tells whether a variable of the environment is meant for a field:
// it begins with PENSTOCK_ and a section's name.
func isOverride(name string) bool {
	for section := range reflect.TypeFor[Config]().Fields() {
		if strings.HasPrefix(name, "PENSTOCK_"+strings.ToUpper(section.Tag.Get("yaml"))+"_") {
			return true
		}
	}
	return false
}

// serviceLink matches NAME=VALUE of what Kubernetes adds to each container for a service of its namespace. A service
// named penstock-receiver makes variables that begin as overrides of the section receiver do. PORT alone, which a person
// could write as well, is a link only with a URL.
var serviceLink = regexp.MustCompile(`^[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|` +
	`PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|_PORT=(tcp|udp|sctp)://`)

// check refuses values that no role could work with, by the field's name.
func (c *Config) check() error {
	var errs []error
	positive := func(name string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("%s must be more than 0", name))
		}
	}
	for section, value := range map[string]any{"process": c.Process, "receiver": c.Receiver, "batcher": c.Batcher,
		"errors": c.Errors, "queue": c.Queue, "sweep": c.Sweep, "clickhouse": c.ClickHouse, "loader": c.Loader} {
		v := reflect.ValueOf(value)
		for f := range v.Type().Fields() {
			if f.Name == "AnonymousRate" || f.Name == "FullEvery" || section == "receiver" && f.Name == "BlobThreshold" {
				continue // 0: none
			}
			if f.Type.Kind() == reflect.Int || f.Type.Kind() == reflect.Int64 {
				positive(section+"."+f.Tag.Get("yaml"), v.FieldByIndex(f.Index).Int())
			}
		}
	}
	if _, err := pipeline.ParseFormat(c.Batcher.Format); err != nil {
		errs = append(errs, fmt.Errorf("batcher.format: %w", err))
	}
	if _, ok := pipeline.ParseDurability(c.Receiver.Durability); !ok {
		errs = append(errs, fmt.Errorf("receiver.durability %q: memory, disk or object", c.Receiver.Durability))
	}
	if c.Sweep.FullEvery < 0 {
		errs = append(errs, fmt.Errorf("sweep.full_every %s: 0 (never) or more", c.Sweep.FullEvery))
	}
	if c.Receiver.Name != "" {
		if err := pipeline.ValidReceiver(c.Receiver.Name); err != nil {
			errs = append(errs, fmt.Errorf("receiver.name: %w", err))
		}
	}
	errs = append(errs, c.checkProxies()...)
	if c.Receiver.MaxEvent > codec.MaxEvent {
		errs = append(errs, fmt.Errorf("receiver.max_event %s: at most %s, for that is the largest event that loaders read",
			c.Receiver.MaxEvent, Size(codec.MaxEvent)))
	}
	if t := c.Receiver.BlobThreshold; t > 0 && t < 4<<10 {
		errs = append(errs, fmt.Errorf("receiver.blob_threshold %s: at least 4KiB (the reference that stays in the row has some 300 bytes), or 0 for none", t))
	}
	if c.Batcher.MaxSegment > c.Batcher.MaxDisk {
		errs = append(errs, errors.New("batcher.max_segment is larger than batcher.max_disk"))
	}
	if n := c.Storage.Notify; n != "storage" && n != "self" && n != "none" {
		errs = append(errs, fmt.Errorf("storage.notify %q: storage, self or none", n))
	}
	switch m := c.Schemas.Mode; {
	case m != "off" && m != "report" && m != "enforce":
		errs = append(errs, fmt.Errorf("schemas.mode %q: off, report or enforce", m))
	case m != "off" && c.Schemas.Dir == "":
		errs = append(errs, fmt.Errorf("schemas.dir is empty, and schemas.mode is %s: name the folder", m))
	}
	if c.Storage.Bucket == "" {
		errs = append(errs, errors.New("storage.bucket is empty"))
	}
	if len(c.ClickHouse.Addresses) == 0 {
		errs = append(errs, errors.New("clickhouse.addresses is empty"))
	}
	if c.Process.LogFormat != "text" && c.Process.LogFormat != "json" {
		errs = append(errs, fmt.Errorf("process.log_format %q: text or json", c.Process.LogFormat))
	}
	if _, err := c.columns(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.imports(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.prices(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.keys(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.proxies(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.checkTLS()...)
	return errors.Join(errs...)
}

// checkTLS refuses a certificate without its key, and what would have no effect.
func (c *Config) checkTLS() (errs []error) {
	for name, s := range map[string]ServerTLSConfig{"admin": c.Admin.TLS, "receiver": c.Receiver.TLS} {
		if (s.Cert == "") != (s.Key == "") || s.Cert == "" && s.ClientCA != "" {
			errs = append(errs, fmt.Errorf("%s.tls needs cert and key: set both, or none of cert, key and client_ca", name))
		}
	}
	for name, s := range map[string]ClientTLSConfig{"storage": c.Storage.TLS, "queue": c.Queue.TLS,
		"clickhouse": c.ClickHouse.TLS.files(), "status": c.Status.TLS} {
		if (s.Cert == "") != (s.Key == "") {
			errs = append(errs, fmt.Errorf("%s.tls has cert or key alone: set both or none", name))
		}
	}
	if t := c.ClickHouse.TLS; !t.Enabled && t.files() != (ClientTLSConfig{}) {
		errs = append(errs, errors.New("clickhouse.tls has files and is not enabled: set clickhouse.tls.enabled"))
	}
	if c.Storage.TLS != (ClientTLSConfig{}) && strings.HasPrefix(c.Storage.Endpoint, "http:") {
		errs = append(errs, fmt.Errorf("storage.tls is set, and storage.endpoint %s is not https", show.URL(c.Storage.Endpoint)))
	}
	if c.Admin.Token != "" && c.Admin.TokenFile != "" {
		errs = append(errs, errors.New("admin.token and admin.token_file are both set: set one"))
	}
	return errs
}

// keys are the receiver's keys as it wants them.
func (c *Config) keys() ([]receiver.Key, error) {
	var keys []receiver.Key
	for i, k := range c.Receiver.Keys {
		key := receiver.Key{Project: k.Project, Secret: k.Secret}
		var err error
		if key.Hash, err = parseHash(k.SHA256); err != nil {
			return nil, fmt.Errorf("receiver.keys[%d].%w", i, err)
		}
		if k.Project == "" {
			return nil, fmt.Errorf("receiver.keys[%d].project is empty", i)
		}
		if key.MinDurability, err = parseFloor(k.MinDurability); err != nil {
			return nil, fmt.Errorf("receiver.keys[%d].%w", i, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// columns are those that events are to have besides its own.
func (c *Config) columns() ([]clickhouse.Column, error) {
	var columns []clickhouse.Column
	for i, column := range c.ClickHouse.Columns {
		if column.Path == "" {
			column.Path = column.Name
		}
		made := clickhouse.Column(column)
		if err := made.Check(); err != nil {
			return nil, fmt.Errorf("clickhouse.columns[%d]: %w", i, err)
		}
		if slices.ContainsFunc(columns, func(c clickhouse.Column) bool { return c.Name == made.Name }) {
			return nil, fmt.Errorf("clickhouse.columns[%d]: %s is there twice", i, made.Name)
		}
		columns = append(columns, made)
	}
	return columns, nil
}

// prices are those of language models as their table has them.
func (c *Config) prices() ([]clickhouse.Price, error) {
	var prices []clickhouse.Price
	seen := map[string]bool{}
	for i, p := range c.LLM.Prices {
		if p.Model == "" || strings.ContainsFunc(p.Model+p.Provider, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("llm.prices[%d]: model %q of provider %q: want a model's name, in which * stands for anything, in ASCII and without spaces", i, p.Model, p.Provider)
		}
		if !(p.Input >= 0 && p.Output >= 0 && (p.Cached == nil || *p.Cached >= 0)) {
			return nil, fmt.Errorf("llm.prices[%d], of %s: a price is below 0; they are USD per million tokens", i, p.Model)
		}
		if name := p.Provider + " " + p.Model; seen[name] {
			return nil, fmt.Errorf("llm.prices[%d]: %s of provider %q has a price already", i, p.Model, p.Provider)
		} else {
			seen[name] = true
		}
		prices = append(prices, clickhouse.Price(p))
	}
	return prices, nil
}

func (c *Config) proxies() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range c.Receiver.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("receiver.trusted_proxies %q: want a network, as 10.0.0.0/8", s)
		}
		all = append(all, p)
	}
	return all, nil
}

// checkProxies refuses headers that no proxy is trusted to send: anybody could set them.
func (c *Config) checkProxies() (errs []error) {
	for _, h := range []struct{ name, value string }{
		{"client_ip_header", c.Receiver.ClientIPHeader}, {"country_header", c.Receiver.CountryHeader},
	} {
		switch {
		case h.value == "":
		case strings.Trim(strings.ToLower(h.value), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
			errs = append(errs, fmt.Errorf("receiver.%s %q: want the name of a header, as CF-Connecting-IP", h.name, h.value))
		case len(c.Receiver.TrustedProxies) == 0:
			errs = append(errs, fmt.Errorf("receiver.%s is %q, but receiver.trusted_proxies is empty: "+
				"name the networks of the proxies that set it", h.name, h.value))
		}
	}
	return errs
}

// findConfig is the file to read where no --config names one: penstock.yaml
// here, or that of a dev stack here.
func findConfig() string {
	for _, path := range []string{"penstock.yaml", filepath.Join(defaultData, "penstock.yaml")} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// Duration is a time.Duration that a config writes as 90s or 1m30s.
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a duration: 200ms, 90s, 5m, 24h", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes that a config writes as 64MiB.
type Size int64

var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func (s Size) String() string {
	for _, u := range units {
		if int64(s)%u.bytes == 0 && int64(s) >= u.bytes {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	text, unit := n.Value, int64(1)
	for _, u := range units {
		if t, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = strings.TrimSpace(t), u.bytes
			break
		}
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || v > (1<<62)/unit {
		return fmt.Errorf("line %d: %q is not a size: 4096, 64KiB, 32MiB, 8GiB", n.Line, n.Value)
	}
	*s = Size(v * unit)
	return nil
}
