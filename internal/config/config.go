// Package config holds every setting of the program: the fields with their units and defaults (config.go), the file
// (file.go), the environment that overrides it (environment.go), and the checks of both (validate.go). It imports no
// stage.
//
// A new setting is a field here, with its default in its tag, and a line in penstock.example.yaml. Its role reads it in
// internal/app.
package config

import (
	"fmt"
	"reflect"
)

// Config is the one file of all roles. penstock.example.yaml beside the README describes every field for operators; a
// test checks that both have the same fields and defaults.
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

// Process is what all roles share.
type Process struct {
	Drain     Duration `yaml:"drain" default:"30s"`       // after SIGTERM; the rest is left to the next start
	LogLevel  string   `yaml:"log_level" default:"info"`  // debug, info, warn or error
	LogFormat string   `yaml:"log_format" default:"text"` // text or json
}

// Admin is the listener for operators.
type Admin struct {
	Listen    string    `yaml:"listen" default:"127.0.0.1:8081"`
	Token     string    `yaml:"token"`      // of the operators' API; empty: it is off
	TokenFile string    `yaml:"token_file"` // in place of Token; read again when it changes
	Hosts     []string  `yaml:"hosts"`      // names in the Host header, beside localhost and addresses; "*": any
	TLS       ServerTLS `yaml:"tls"`
}

// Receiver is what clients send to.
type Receiver struct {
	Listen         string   `yaml:"listen" default:":8080"`
	OTLPGRPCListen string   `yaml:"otlp_grpc_listen"` // empty: off
	Name           string   `yaml:"name"`             // in keys of objects; empty: of the host, with a random part
	Durability     string   `yaml:"durability" default:"disk"`
	Keys           []Key    `yaml:"keys"`
	Projects       string   `yaml:"projects"`                        // file of projects; empty: only Keys
	MaxBody        Size     `yaml:"max_body" default:"256MiB"`       // of a request as sent
	MaxDecoded     Size     `yaml:"max_decoded" default:"256MiB"`    // of a request, decompressed
	SmallBody      Size     `yaml:"small_body" default:"4MiB"`       // of a request whose key is not for large ones
	MaxEvent       Size     `yaml:"max_event" default:"100MiB"`      // with its large values
	MaxEvents      int      `yaml:"max_events" default:"50000"`      // of a request
	BlobThreshold  Size     `yaml:"blob_threshold" default:"64KiB"`  // larger values leave their row; 0: none do
	MaxDepth       int      `yaml:"max_depth" default:"64"`          // of an event's nesting
	MaxMemory      Size     `yaml:"max_memory" default:"96MiB"`      // of all requests together
	MaxSpool       Size     `yaml:"max_spool" default:"4GiB"`        // of all large bodies, on disk
	ReadTimeout    Duration `yaml:"read_timeout" default:"30s"`      // for a body, or a part of a large one
	RetryAfter     Duration `yaml:"retry_after" default:"5s"`        // sent with a 503
	Origins        []string `yaml:"cors_origins" default:"['*']"`    // that browsers may send from
	TrustedProxies []string `yaml:"trusted_proxies"`                 // networks; they may name the client
	ClientIPHeader string   `yaml:"client_ip_header"`                // empty: x-forwarded-for, or else forwarded
	CountryHeader  string   `yaml:"country_header"`                  // empty: none
	SessionReplay  bool     `yaml:"session_replay"`                  // ask posthog-js to record sessions
	MaxConnections int      `yaml:"max_connections" default:"10000"` // of clients at once
	MaxKeyless     int      `yaml:"max_keyless" default:"128"`       // bodies of an address before their key is known

	TLS ServerTLS `yaml:"tls"`
}

// Key is a key of the configuration. Those of projects are in another file (internal/projects).
type Key struct {
	Project       string `yaml:"project"`
	SHA256        string `yaml:"sha256"`         // of the key, 64 hex digits
	Secret        string `yaml:"secret"`         // with which GameAnalytics' clients sign; empty: none
	MinDurability string `yaml:"min_durability"` // empty: memory
}

// Batcher is the write-ahead log and what makes objects of it.
type Batcher struct {
	Dir           string   `yaml:"dir" default:"penstock-data"`
	Format        string   `yaml:"format" default:"parquet"`     // of objects: parquet or ndjson
	RollAge       Duration `yaml:"roll_age" default:"90s"`       // a batch becomes an object at this age,
	RollBytes     Size     `yaml:"roll_bytes" default:"64MiB"`   // or when its object is estimated at this size,
	RollRows      int64    `yaml:"roll_rows" default:"2000000"`  // or with this number of events
	MaxSegment    Size     `yaml:"max_segment" default:"512MiB"` // of a batch on disk, before it is encoded
	MaxDisk       Size     `yaml:"max_disk" default:"8GiB"`      // of all batches on disk; beyond it 503
	ObjectWait    Duration `yaml:"object_wait" default:"200ms"`  // from a request for durability object to the roll
	ObjectTimeout Duration `yaml:"object_timeout" default:"30s"` // until such a request is answered by 503
	Uploads       int      `yaml:"uploads" default:"2"`          // at once
	PutTimeout    Duration `yaml:"put_timeout" default:"2m"`     // of one PUT
	BackoffMin    Duration `yaml:"backoff_min" default:"200ms"`  // between PUTs that fail
	BackoffMax    Duration `yaml:"backoff_max" default:"20s"`
}

// Errors are the limits of the errors pipeline, which must not take the events' room.
type Errors struct {
	MaxDisk       Size `yaml:"max_disk" default:"1GiB"`        // of its batches on disk
	MaxMemory     Size `yaml:"max_memory" default:"48MiB"`     // of failures not yet in a batch
	BlobThreshold Size `yaml:"blob_threshold" default:"1MiB"`  // raw bytes beyond it become a blob
	AnonymousRate Size `yaml:"anonymous_rate" default:"64KiB"` // bytes a second of clients without a known key; 0: none
}

// Storage is the object store.
type Storage struct {
	Endpoint  string `yaml:"endpoint"` // URL; empty: AWS
	Region    string `yaml:"region" default:"us-east-1"`
	Bucket    string `yaml:"bucket" default:"penstock"`
	AccessKey string `yaml:"access_key"`
	SecretKey string `yaml:"secret_key"`
	PathStyle bool   `yaml:"path_style" default:"true"`                           // the bucket is not in the host name
	Notify    string `yaml:"notify" default:"storage"`                            // who notifies: storage, self or none
	NotifyARN string `yaml:"notify_arn" default:"arn:minio:sqs::{PIPELINE}:nats"` // empty: leave the bucket's rules alone

	TLS ClientTLS `yaml:"tls"`
}

// Queue is NATS, for notifications.
type Queue struct {
	URL      string   `yaml:"url" default:"nats://127.0.0.1:4222"` // several with commas
	User     string   `yaml:"user"`
	Password string   `yaml:"password"`
	Creds    string   `yaml:"creds"`                    // file; empty: none
	AckWait  Duration `yaml:"ack_wait" default:"20s"`   // a loader that is silent for longer loses its object
	MaxAge   Duration `yaml:"max_age" default:"168h"`   // of a notification
	MaxBytes Size     `yaml:"max_bytes" default:"1GiB"` // of a stream
	Replicas int      `yaml:"replicas" default:"1"`     // of a stream

	TLS ClientTLS `yaml:"tls"`
}

// ClickHouse is the database of tables and ledger.
type ClickHouse struct {
	Addresses []string `yaml:"addresses" default:"['127.0.0.1:9000']"` // host:port of the native protocol
	Database  string   `yaml:"database" default:"penstock"`
	User      string   `yaml:"user" default:"default"`
	Password  string   `yaml:"password"`
	Timeout   Duration `yaml:"timeout" default:"5m"` // of one insert
	Columns   []Column `yaml:"columns"`              // that events are to have beside their own

	StorageEndpoint string `yaml:"storage_endpoint"` // URL by which ClickHouse reaches the store; empty: storage.endpoint

	TLS ClickHouseTLS `yaml:"tls"`
}

// Column is a column of one property.
type Column struct {
	Name string `yaml:"name"`
	Path string `yaml:"path"` // keys joined by dots; empty: the name
	Type string `yaml:"type"`
}

// Loader loads objects into ClickHouse.
type Loader struct {
	Name        string   `yaml:"name"`                     // in the ledger; empty: of the host and the process
	Workers     int      `yaml:"workers" default:"2"`      // objects at once, for each pipeline
	Dir         string   `yaml:"dir"`                      // for objects that are being loaded; empty: of the system
	BackoffMin  Duration `yaml:"backoff_min" default:"1s"` // between attempts at one object
	BackoffMax  Duration `yaml:"backoff_max" default:"5m"`
	MaxAttempts int      `yaml:"max_attempts" default:"10"` // that may fail through the object's own fault

	MaxUnfinished int `yaml:"max_unfinished" default:"5"` // attempts in a row that are killed; then it is loaded alone
}

// Sweep finds objects whose notification was lost.
type Sweep struct {
	Every Duration `yaml:"every" default:"5m"`
	Span  Duration `yaml:"span" default:"168h"` // how far back
	Grace Duration `yaml:"grace" default:"2m"`  // an object that was stored less than this ago is left alone
	Poll  Duration `yaml:"poll" default:"10s"`  // without a queue: between two looks at the last hour

	FullEvery Duration `yaml:"full_every" default:"24h"` // between two listings of the whole bucket; 0: never
	FullRate  int      `yaml:"full_rate" default:"10"`   // list requests a second of it
}

// Schemas are those of events' properties.
type Schemas struct {
	Dir  string `yaml:"dir"`
	Mode string `yaml:"mode" default:"off"` // off, report or enforce
}

// LLM is what language models cost.
type LLM struct {
	Prices []Price `yaml:"prices"`
}

// Price is that of a model, in USD per million tokens.
type Price struct {
	Model    string   `yaml:"model"`    // * is for anything
	Provider string   `yaml:"provider"` // empty: any
	Input    float64  `yaml:"input"`
	Cached   *float64 `yaml:"cached_input"` // nil: as Input
	Output   float64  `yaml:"output"`
}

// Status is what penstock status asks.
type Status struct {
	Admins []string  `yaml:"admins"` // URLs of admin listeners; empty: of admin.listen
	TLS    ClientTLS `yaml:"tls"`
}

// Default is the configuration of an empty file: the defaults in the fields' tags.
func Default() Config {
	var cfg Config
	root := reflect.ValueOf(&cfg).Elem()
	for section := range root.Type().Fields() {
		for f := range sectionFields(section) {
			text := f.Tag.Get("default")
			into := root.FieldByIndex(section.Index).FieldByIndex(f.Index).Addr().Interface()
			if err := DecodeYAML([]byte(text), into); err != nil {
				panic(fmt.Sprintf("default of %s.%s: %v", section.Name, f.Name, err)) // the tag of a field above is wrong
			}
		}
	}
	return cfg
}
