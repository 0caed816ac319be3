// Package config holds every setting of the program: the fields with their defaults (config.go), the file (file.go),
// the environment that overrides it (environment.go), and the checks of both (validate.go). It imports no stage.
package config

import "time"

// Config is the one file of all roles. penstock.example.yaml beside the README
// holds every field with its unit and default; a test holds the two together.
type Config struct {
	Process    Process    `yaml:"process"`
	Admin      Admin      `yaml:"admin"`
	Receiver   Receiver   `yaml:"receiver"`
	Batcher    Batcher    `yaml:"batcher"`
	Errors     Errors     `yaml:"errors"`
	Storage    Storage    `yaml:"storage"`
	Queue      Queue      `yaml:"queue"`
	ClickHouse ClickHouse `yaml:"clickhouse"`
	Loader     Loader     `yaml:"loader"`
	Sweep      Sweep      `yaml:"sweep"`
	LLM        LLM        `yaml:"llm"`
	Schemas    Schemas    `yaml:"schemas"`
	Status     Status     `yaml:"status"`
	Imports    []Import   `yaml:"imports"`
}

type Process struct {
	Drain     Duration `yaml:"drain"`
	LogLevel  string   `yaml:"log_level"`
	LogFormat string   `yaml:"log_format"`
}

type Admin struct {
	Listen    string    `yaml:"listen"`
	Token     string    `yaml:"token"`
	TokenFile string    `yaml:"token_file"` // read again when it changes
	Hosts     []string  `yaml:"hosts"`      // names in the Host header, beside localhost and addresses; "*": any
	TLS       ServerTLS `yaml:"tls"`
}

type Receiver struct {
	Listen         string   `yaml:"listen"`
	OTLPGRPCListen string   `yaml:"otlp_grpc_listen"`
	Name           string   `yaml:"name"`
	Durability     string   `yaml:"durability"`
	Keys           []Key    `yaml:"keys"`
	Projects       string   `yaml:"projects"`
	MaxBody        Size     `yaml:"max_body"`
	MaxDecoded     Size     `yaml:"max_decoded"`
	SmallBody      Size     `yaml:"small_body"`
	MaxEvent       Size     `yaml:"max_event"`
	MaxEvents      int      `yaml:"max_events"`
	BlobThreshold  Size     `yaml:"blob_threshold"`
	MaxDepth       int      `yaml:"max_depth"`
	MaxMemory      Size     `yaml:"max_memory"`
	MaxSpool       Size     `yaml:"max_spool"`
	ReadTimeout    Duration `yaml:"read_timeout"`
	RetryAfter     Duration `yaml:"retry_after"`
	Origins        []string `yaml:"cors_origins"`
	TrustedProxies []string `yaml:"trusted_proxies"`
	ClientIPHeader string   `yaml:"client_ip_header"`
	CountryHeader  string   `yaml:"country_header"`
	SessionReplay  bool     `yaml:"session_replay"`
	MaxConnections int      `yaml:"max_connections"`
	MaxKeyless     int      `yaml:"max_keyless"`

	TLS ServerTLS `yaml:"tls"`
}

type Key struct {
	Project       string `yaml:"project"`
	SHA256        string `yaml:"sha256"`
	Secret        string `yaml:"secret"`
	MinDurability string `yaml:"min_durability"`
}

type Batcher struct {
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

type Errors struct {
	MaxDisk       Size `yaml:"max_disk"`
	MaxMemory     Size `yaml:"max_memory"`
	BlobThreshold Size `yaml:"blob_threshold"`
	AnonymousRate Size `yaml:"anonymous_rate"`
}

type Storage struct {
	Endpoint  string `yaml:"endpoint"`
	Region    string `yaml:"region"`
	Bucket    string `yaml:"bucket"`
	AccessKey string `yaml:"access_key"`
	SecretKey string `yaml:"secret_key"`
	PathStyle bool   `yaml:"path_style"`
	Notify    string `yaml:"notify"`
	NotifyARN string `yaml:"notify_arn"`

	TLS ClientTLS `yaml:"tls"`
}

type Queue struct {
	URL      string   `yaml:"url"`
	User     string   `yaml:"user"`
	Password string   `yaml:"password"`
	Creds    string   `yaml:"creds"`
	AckWait  Duration `yaml:"ack_wait"`
	MaxAge   Duration `yaml:"max_age"`
	MaxBytes Size     `yaml:"max_bytes"`
	Replicas int      `yaml:"replicas"`

	TLS ClientTLS `yaml:"tls"`
}

type ClickHouse struct {
	Addresses []string `yaml:"addresses"`
	Database  string   `yaml:"database"`
	User      string   `yaml:"user"`
	Password  string   `yaml:"password"`
	Timeout   Duration `yaml:"timeout"`
	Columns   []Column `yaml:"columns"`

	StorageEndpoint string `yaml:"storage_endpoint"`

	TLS ClickHouseTLS `yaml:"tls"`
}

type Column struct {
	Name string `yaml:"name"`
	Path string `yaml:"path"`
	Type string `yaml:"type"`
}

type Loader struct {
	Name        string   `yaml:"name"`
	Workers     int      `yaml:"workers"`
	Dir         string   `yaml:"dir"`
	BackoffMin  Duration `yaml:"backoff_min"`
	BackoffMax  Duration `yaml:"backoff_max"`
	MaxAttempts int      `yaml:"max_attempts"`

	MaxUnfinished int `yaml:"max_unfinished"`
}

type Sweep struct {
	Every Duration `yaml:"every"`
	Span  Duration `yaml:"span"`
	Grace Duration `yaml:"grace"`
	Poll  Duration `yaml:"poll"`

	FullEvery Duration `yaml:"full_every"` // 0: never
	FullRate  int      `yaml:"full_rate"`  // list requests a second
}

type Schemas struct {
	Dir  string `yaml:"dir"`
	Mode string `yaml:"mode"`
}

type LLM struct {
	Prices []Price `yaml:"prices"`
}

type Price struct {
	Model    string   `yaml:"model"`
	Provider string   `yaml:"provider"`
	Input    float64  `yaml:"input"`
	Cached   *float64 `yaml:"cached_input"`
	Output   float64  `yaml:"output"`
}

type Status struct {
	Admins []string  `yaml:"admins"`
	TLS    ClientTLS `yaml:"tls"`
}

// Default is what holds where the file says nothing.
func Default() Config {
	return Config{
		Process: Process{Drain: Duration(30 * time.Second), LogLevel: "info", LogFormat: "text"},
		Admin:   Admin{Listen: "127.0.0.1:8081"},
		Receiver: Receiver{
			Listen: ":8080", Durability: "disk",
			MaxBody: 256 << 20, MaxDecoded: 256 << 20, SmallBody: 4 << 20, MaxEvent: 100 << 20, MaxEvents: 50_000,
			BlobThreshold: 64 << 10, MaxDepth: 64, MaxMemory: 96 << 20, MaxSpool: 4 << 30,
			ReadTimeout: Duration(30 * time.Second), RetryAfter: Duration(5 * time.Second), Origins: []string{"*"},
			MaxConnections: 10_000, MaxKeyless: 128,
		},
		Batcher: Batcher{
			Dir: "penstock-data", Format: "parquet",
			RollAge: Duration(90 * time.Second), RollBytes: 64 << 20, RollRows: 2_000_000, MaxSegment: 512 << 20,
			MaxDisk:    8 << 30,
			ObjectWait: Duration(200 * time.Millisecond), ObjectTimeout: Duration(30 * time.Second),
			Uploads: 2, PutTimeout: Duration(2 * time.Minute), BackoffMin: Duration(200 * time.Millisecond),
			BackoffMax: Duration(20 * time.Second),
		},
		Errors: Errors{MaxDisk: 1 << 30, MaxMemory: 48 << 20, BlobThreshold: 1 << 20, AnonymousRate: 64 << 10},
		Storage: Storage{Region: "us-east-1", Bucket: "penstock", PathStyle: true, Notify: "storage",
			NotifyARN: "arn:minio:sqs::{PIPELINE}:nats"},
		Queue: Queue{URL: "nats://127.0.0.1:4222", AckWait: Duration(20 * time.Second), MaxAge: Duration(7 * 24 * time.Hour),
			MaxBytes: 1 << 30, Replicas: 1},
		ClickHouse: ClickHouse{Addresses: []string{"127.0.0.1:9000"}, Database: "penstock", User: "default",
			Timeout: Duration(5 * time.Minute)},
		Loader: Loader{Workers: 2,
			BackoffMin: Duration(time.Second), BackoffMax: Duration(5 * time.Minute), MaxAttempts: 10, MaxUnfinished: 5},
		Schemas: Schemas{Mode: "off"},
		Sweep: Sweep{Every: Duration(5 * time.Minute), Span: Duration(7 * 24 * time.Hour),
			Grace: Duration(2 * time.Minute), Poll: Duration(10 * time.Second),
			FullEvery: Duration(24 * time.Hour), FullRate: 10},
	}
}
