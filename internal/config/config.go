// Package config holds every setting of the program: the fields with their units and defaults (config.go), the file
// (file.go), the environment that overrides it (environment.go), the checks of both (validate.go), and where each value
// comes from (sources.go). It imports no stage.
//
// A new setting is a field here, with its default and its description in tags. penstock.example.yaml,
// docs/reference/configuration.md and the JSON Schema are generated from the tags. Its role reads it in internal/app.
package config

import (
	"fmt"
	"reflect"
)

// Config is the one file of all roles. Tags: default (none: empty), doc, enum (the only values), also (other spellings
// of them), min (of a number; none: more than 0), secret (never shown), example (of a list's item).
type Config struct {
	Process    Process    `yaml:"process" doc:"All roles."`
	Admin      Admin      `yaml:"admin" doc:"The listener for operators: /livez, /readyz, /metrics, /version, /status and the operators' API. Clients must not reach it. Give each role on a machine a separate address."`
	Receiver   Receiver   `yaml:"receiver" doc:"The listener for clients, and the limits of a request."`
	Batcher    Batcher    `yaml:"batcher" doc:"The write-ahead log (WAL), and the objects made from it."`
	Errors     Errors     `yaml:"errors" doc:"Limits of the errors pipeline, separate from those of events."`
	Storage    Storage    `yaml:"storage" doc:"The object store: MinIO, R2, S3 or another with the S3 API and conditional PUT."`
	Queue      Queue      `yaml:"queue" doc:"The queue of notifications."`
	ClickHouse ClickHouse `yaml:"clickhouse" doc:"The database of the tables and the load ledger."`
	Loader     Loader     `yaml:"loader" doc:"Loading of objects into ClickHouse."`
	Sweep      Sweep      `yaml:"sweep" doc:"Sweeps find objects whose notification was lost. One loader at a time runs them."`
	LLM        LLM        `yaml:"llm" doc:"LLM calls (docs/guides/llm.md)."`
	Schemas    Schemas    `yaml:"schemas" doc:"JSON Schemas of events' properties (docs/guides/schemas.md)."`
	Status     Status     `yaml:"status" doc:"What the command status asks."`
	Tracing    Tracing    `yaml:"tracing" doc:"OpenTelemetry traces of Penstock itself (docs/operate/traces.md)."`
	Imports    []Import   `yaml:"imports" doc:"Layouts of files that you put below events/ (docs/guides/imports.md). The longest prefix wins." example:"{prefix: events/imports/crm/, name: event_type, timestamp: event_time, event_id: uuid, user_id: user.id}"`
}

// Process is what all roles share.
type Process struct {
	Drain     Duration `yaml:"drain" default:"30s" doc:"Time to finish after SIGTERM. Batches that are not stored then stay on disk for the next start."`
	LogLevel  string   `yaml:"log_level" default:"info" enum:"debug info warn error" also:"DEBUG INFO WARN ERROR" doc:"Least level that is logged."`
	LogFormat string   `yaml:"log_format" default:"text" enum:"text json" doc:"Format of log lines on standard error."`
}

// Admin is the listener for operators.
type Admin struct {
	Listen    string       `yaml:"listen" default:"127.0.0.1:8081" doc:"Address, as host:port."`
	Token     string       `yaml:"token" secret:"true" doc:"Token of the operators' API (/v1/…, docs/openapi.json). Empty: the API is off."`
	TokenFile string       `yaml:"token_file" doc:"File with the token, instead of token. It is read again when it changes."`
	Tokens    []AdminToken `yaml:"tokens" doc:"More tokens, each with a name for the audit table and a role. operator: everything. viewer: looks, and changes nothing." example:"{name: ann, role: viewer, sha256: SHA-256 of the token in hex}"`
	Hosts     []string     `yaml:"hosts" doc:"Names accepted in the Host header, beside localhost, IP addresses and the name in listen. \"*\": any."`
	TLS       ServerTLS    `yaml:"tls" doc:"Certificate. It is read again when its files change. Empty: plain HTTP."`
}

// AdminToken is a token of the operators' API and the console.
type AdminToken struct {
	Name   string `yaml:"name" doc:"Name in the audit table."`
	Role   string `yaml:"role" doc:"operator or viewer."`
	SHA256 string `yaml:"sha256" doc:"SHA-256 of the token, 64 hex digits."`
}

// Receiver is what clients send to.
type Receiver struct {
	Listen         string   `yaml:"listen" default:":8080" doc:"Address for HTTP, as host:port."`
	OTLPGRPCListen string   `yaml:"otlp_grpc_listen" doc:"Address for OTLP over gRPC, as :4317. It uses HTTP/2, without TLS unless receiver.tls is set. Empty: off."`
	Name           string   `yaml:"name" doc:"Name in the keys of objects: 1 to 64 letters, digits, '.', '-' and '_'. Empty: the host name and a random part, stored in batcher.dir."`
	Durability     string   `yaml:"durability" default:"disk" enum:"memory disk object" doc:"Where an event is stored before a 2xx answer, unless the request has ?durability=."`
	Keys           []Key    `yaml:"keys" doc:"API keys. Those of receiver.projects can change without a restart." example:"{project: game, sha256: SHA-256 of the key in hex, min_durability: memory}"`
	Projects       string   `yaml:"projects" doc:"File with projects, API keys and limits (docs/guides/projects.md). It is read again when it changes. Empty: only receiver.keys."`
	MaxBody        Size     `yaml:"max_body" default:"256MiB" doc:"Largest request as sent."`
	MaxDecoded     Size     `yaml:"max_decoded" default:"256MiB" doc:"Largest request after decompression."`
	SmallBody      Size     `yaml:"small_body" default:"4MiB" doc:"Largest request, sent or decompressed, of a project's key without large, or of a key that is not known yet."`
	MaxEvent       Size     `yaml:"max_event" default:"100MiB" doc:"Largest event with its large values. Without them the limit is 8MiB."`
	MaxEvents      int      `yaml:"max_events" default:"50000" doc:"Most events of a request."`
	BlobThreshold  Size     `yaml:"blob_threshold" default:"64KiB" min:"0" doc:"Larger values become blobs below blobs/events/; the row keeps a blob reference. 0: no blobs."`
	MaxDepth       int      `yaml:"max_depth" default:"64" doc:"Deepest nesting of an event."`
	MaxMemory      Size     `yaml:"max_memory" default:"96MiB" doc:"Memory of all requests together: bodies up to 1MiB, decompressors, events. Beyond it: 503."`
	MaxSpool       Size     `yaml:"max_spool" default:"4GiB" doc:"Disk of all larger bodies together, in batcher.dir/spool. Beyond it: 503."`
	ReadTimeout    Duration `yaml:"read_timeout" default:"30s" doc:"Time for a body, or for each part of one above 1MiB, which needs 32KiB per second. Beyond it: 408."`
	RetryAfter     Duration `yaml:"retry_after" default:"5s" doc:"Retry-After header of a 503."`
	Origins        []string `yaml:"cors_origins" default:"['*']" doc:"Origins that browsers may send from."`
	TrustedProxies []string `yaml:"trusted_proxies" doc:"Networks of the proxies in front of the receiver, as 10.0.0.0/8. Only they may name the client's address."`
	ClientIPHeader string   `yaml:"client_ip_header" doc:"Header with the client's address, as cf-connecting-ip. Empty: X-Forwarded-For, else Forwarded."`
	CountryHeader  string   `yaml:"country_header" doc:"Header with the client's country, as CF-IPCountry. Empty: none."`
	SessionReplay  bool     `yaml:"session_replay" default:"false" doc:"Ask posthog-js to record sessions. Recordings are large."`
	MaxConnections int      `yaml:"max_connections" default:"10000" doc:"Connections at once. A further one replaces the oldest without a known key, or is closed."`
	MaxKeyless     int      `yaml:"max_keyless" default:"128" doc:"Bodies that one client address may send at once before their key is known. Behind a proxy, set trusted_proxies."`

	TLS ServerTLS `yaml:"tls" doc:"Certificate, as admin.tls. Clients may use HTTP/2 then."`
}

// Key is a key of the configuration. Those of projects are in another file (internal/projects).
type Key struct {
	Project       string `yaml:"project" doc:"Project of the key."`
	SHA256        string `yaml:"sha256" doc:"SHA-256 of the key, 64 hex digits."`
	Secret        string `yaml:"secret" secret:"true" doc:"Secret with which GameAnalytics' clients sign. Empty: none."`
	MinDurability string `yaml:"min_durability" doc:"Lowest durability that requests may ask for: memory, disk or object. Empty: memory."`
}

// Batcher is the write-ahead log and what makes objects of it.
type Batcher struct {
	Dir           string   `yaml:"dir" default:"penstock-data" doc:"Folder of the WAL, on a local disk. Each receiver needs a separate one."`
	Format        string   `yaml:"format" default:"parquet" enum:"parquet ndjson" also:"ndjson.zst" doc:"Format of objects. NDJSON is compressed with zstd."`
	RollAge       Duration `yaml:"roll_age" default:"90s" doc:"A batch becomes an object at this age,"`
	RollBytes     Size     `yaml:"roll_bytes" default:"64MiB" doc:"or when its object is estimated at this size,"`
	RollRows      int64    `yaml:"roll_rows" default:"2000000" doc:"or with this number of events."`
	MaxSegment    Size     `yaml:"max_segment" default:"512MiB" doc:"Largest batch on disk, before it is encoded."`
	MaxDisk       Size     `yaml:"max_disk" default:"8GiB" doc:"Disk of all waiting batches. Beyond it: 503."`
	ObjectWait    Duration `yaml:"object_wait" default:"200ms" doc:"Time from a request with durability object to the roll, which it shares with others."`
	ObjectTimeout Duration `yaml:"object_timeout" default:"30s" doc:"Longest wait of such a request. Beyond it: 503."`
	Uploads       int      `yaml:"uploads" default:"2" doc:"Uploads at once."`
	PutTimeout    Duration `yaml:"put_timeout" default:"2m" doc:"Time for one PUT."`
	BackoffMin    Duration `yaml:"backoff_min" default:"200ms" doc:"Shortest wait after a failed PUT."`
	BackoffMax    Duration `yaml:"backoff_max" default:"20s" doc:"Longest wait after a failed PUT."`
}

// Errors are the limits of the errors pipeline.
type Errors struct {
	MaxDisk       Size `yaml:"max_disk" default:"1GiB" doc:"Disk of its waiting batches."`
	MaxMemory     Size `yaml:"max_memory" default:"48MiB" doc:"Memory of failure records that are in no batch yet."`
	BlobThreshold Size `yaml:"blob_threshold" default:"1MiB" doc:"Larger raw payloads become blobs below blobs/errors/."`
	AnonymousRate Size `yaml:"anonymous_rate" default:"64KiB" min:"0" doc:"Bytes per second kept of requests without a known key, and 16 times as much at once. The rest is counted. 0: none are kept."`
}

// Storage is the object store.
type Storage struct {
	Endpoint  string `yaml:"endpoint" doc:"URL of the S3 API, as http://127.0.0.1:9000. Empty: AWS."`
	Region    string `yaml:"region" default:"us-east-1" doc:"Region. R2: auto."`
	Bucket    string `yaml:"bucket" default:"penstock" doc:"Name of the bucket."`
	AccessKey string `yaml:"access_key" doc:"Access key ID. Empty, with an empty secret_key: AWS's default chain (environment, shared profile, SSO, web identity, ECS, EC2)."`
	SecretKey string `yaml:"secret_key" secret:"true" doc:"Secret access key."`
	PathStyle bool   `yaml:"path_style" default:"true" doc:"The bucket is in the path, not in the host name, as MinIO wants it."`
	Notify    string `yaml:"notify" default:"storage" enum:"storage self none" doc:"Where notifications of new objects come from. storage: the store's notification rules. self: the receiver, after its PUT. none: there is no queue; loaders sweep."`
	NotifyARN string `yaml:"notify_arn" default:"arn:minio:sqs::{PIPELINE}:nats" doc:"Target of the notification rules that setup creates. {PIPELINE} becomes EVENTS or ERRORS. Empty: setup leaves the rules alone."`

	SessionToken string `yaml:"session_token" secret:"true" doc:"Session token of temporary keys. It expires with them: prefer the default chain."`
	Profile      string `yaml:"profile" doc:"Profile of AWS's shared files, used if access_key is empty."`
	RoleARN      string `yaml:"role_arn" doc:"IAM role that is assumed with these credentials. Empty: none."`

	TLS ClientTLS `yaml:"tls" doc:"Files for an https endpoint. Empty: the system's CAs, and those of AWS_CA_BUNDLE."`
}

// Queue is the queue of notifications. Each type but nats has its fields in a section of that name.
type Queue struct {
	Type     string   `yaml:"type" default:"nats" enum:"nats sqs cloudflare none" doc:"Queue that carries notifications. none: there is no queue; loaders sweep. storage.notify: none has the same effect."`
	URL      string   `yaml:"url" default:"nats://127.0.0.1:4222" doc:"NATS: URL of the server. Separate several with commas."`
	User     string   `yaml:"user" doc:"NATS: user."`
	Password string   `yaml:"password" secret:"true" doc:"NATS: password."`
	Creds    string   `yaml:"creds" doc:"NATS: credentials file. Empty: none."`
	AckWait  Duration `yaml:"ack_wait" default:"20s" doc:"After this silence of a loader, another one gets its object. SQS: rounded up to whole seconds. Cloudflare: queue.cloudflare.lease."`
	MaxAge   Duration `yaml:"max_age" default:"168h" doc:"Age at which a notification is deleted. SQS: 336h at most. Cloudflare: set it there."`
	MaxBytes Size     `yaml:"max_bytes" default:"1GiB" doc:"NATS: largest stream."`
	Replicas int      `yaml:"replicas" default:"1" doc:"NATS: replicas of a stream."`

	SQS SQS `yaml:"sqs" doc:"Amazon SQS."`

	Cloudflare Cloudflare `yaml:"cloudflare" doc:"Cloudflare Queues, to which R2 sends notifications."`

	TLS ClientTLS `yaml:"tls" doc:"NATS: files for TLS. The connection uses TLS if one is set, or if url begins with tls://."`
}

// SQS are the queues of Amazon SQS. Credentials are those of Storage.
type SQS struct {
	Queue    string `yaml:"queue" default:"penstock-{PIPELINE}" doc:"Name or URL of the queues. {PIPELINE} becomes events or errors."`
	Region   string `yaml:"region" doc:"Region. Empty: storage.region."`
	Endpoint string `yaml:"endpoint" doc:"URL of the SQS API. Empty: AWS."`
}

// Cloudflare are the queues of Cloudflare Queues.
type Cloudflare struct {
	Account      string   `yaml:"account" doc:"Account ID."`
	APIToken     string   `yaml:"api_token" secret:"true" doc:"API token with the permission Queues: Edit, and for setup Workers R2 Storage: Edit."`
	APITokenFile string   `yaml:"api_token_file" doc:"File with the token, instead of api_token. It is read again when it changes."`
	Queue        string   `yaml:"queue" default:"penstock-{PIPELINE}" doc:"Name of the queues. {PIPELINE} becomes events or errors."`
	Lease        Duration `yaml:"lease" default:"1h" doc:"Time that a loader has for an object, 12h at most. An object that takes longer is loaded twice and counts once. After a kill, another loader gets it then, or by the next sweep."`
	Poll         Duration `yaml:"poll" default:"15s" doc:"Longest wait between two pulls from an empty queue. Each pull is charged."`
	Jurisdiction string   `yaml:"jurisdiction" doc:"Jurisdiction of the R2 bucket, as eu. Empty: none."`
	Endpoint     string   `yaml:"endpoint" default:"https://api.cloudflare.com/client/v4" doc:"URL of Cloudflare's API."`
}

// QueueType is the type of the queue in use: queue.type, or none if storage.notify says so.
func (cfg *Config) QueueType() string {
	if cfg.Storage.Notify == NoQueue {
		return NoQueue
	}
	return cfg.Queue.Type
}

// NoQueue is the value of queue.type and storage.notify without a queue.
const NoQueue = "none"

// ClickHouse is the database of tables and ledger.
type ClickHouse struct {
	Addresses []string `yaml:"addresses" default:"['127.0.0.1:9000']" doc:"Servers as host:port of the native protocol: port 9000, with TLS 9440."`
	Database  string   `yaml:"database" default:"penstock" doc:"Database of the tables."`
	User      string   `yaml:"user" default:"default" doc:"User."`
	Password  string   `yaml:"password" secret:"true" doc:"Password."`
	Timeout   Duration `yaml:"timeout" default:"5m" doc:"Time for one insert."`
	Columns   []Column `yaml:"columns" doc:"Columns of properties that queries need often (docs/guides/columns.md). setup adds them to events and never drops one." example:"{name: level, path: level, type: Int64}"`

	CatalogueExamples bool `yaml:"catalogue_examples" default:"true" doc:"Keep a value of each property in the property catalogue. false: setup deletes those that exist."`

	Rollups      []Rollup `yaml:"rollups" doc:"Your own rollups (docs/guides/analytics.md). setup creates their tables, and loaders compute them." example:"{name: events_by_country, key: 'project, country', select: 'SELECT ...'}"`
	RollupsEvery Duration `yaml:"rollups_every" default:"10m" min:"0" doc:"Time between two refreshes of rollups by loaders. 0s: only by \"penstock rollups refresh\"."`

	StorageEndpoint string `yaml:"storage_endpoint" doc:"URL by which ClickHouse reaches the S3 API, to decode imports in Parquet, ORC, Avro and Arrow. Empty: storage.endpoint."`

	TLS ClickHouseTLS `yaml:"tls" doc:"Files for TLS. \"tls: true\" trusts the system's CAs."`
}

// Column is a column of one property.
type Column struct {
	Name string `yaml:"name" doc:"Name of the column."`
	Path string `yaml:"path" doc:"Keys of the property, joined by dots. Empty: the name."`
	Type string `yaml:"type" doc:"String, LowCardinality(String), Int64, Float64, Bool, DateTime64(3) or UUID."`
}

// Rollup is a table that is computed from events, a day at a time.
type Rollup struct {
	Name   string `yaml:"name" doc:"Name of the table."`
	Select string `yaml:"select" doc:"Query that returns the rows of {day:Date}, or of {from:Date} through {to:Date}, with a column day."`
	Key    string `yaml:"key" doc:"Columns of the sorting key, separated by commas."`
}

// Loader loads objects into ClickHouse.
type Loader struct {
	Name        string   `yaml:"name" doc:"Name in the load ledger. Empty: host name and process id."`
	Workers     int      `yaml:"workers" default:"2" doc:"Objects loaded at once, per pipeline."`
	Dir         string   `yaml:"dir" doc:"Folder for objects while they are loaded. Empty: the system's temporary folder. The loader also writes failure records to batcher.dir/load."`
	BackoffMin  Duration `yaml:"backoff_min" default:"1s" doc:"Shortest wait before the next attempt at an object."`
	BackoffMax  Duration `yaml:"backoff_max" default:"5m" doc:"Longest wait before the next attempt at an object."`
	MaxAttempts int      `yaml:"max_attempts" default:"10" doc:"Attempts that may fail because of the object. Then it is a dead letter."`

	MaxUnfinished int `yaml:"max_unfinished" default:"5" doc:"Attempts in a row that may be killed. Then the object is loaded alone, in a process with a memory limit."`
}

// Sweep finds objects whose notification was lost.
type Sweep struct {
	Every Duration `yaml:"every" default:"5m" doc:"Time between two sweeps."`
	Span  Duration `yaml:"span" default:"168h" doc:"How far back a sweep looks."`
	Grace Duration `yaml:"grace" default:"2m" doc:"Objects stored less than this ago are left alone: their notification may be on its way."`
	Poll  Duration `yaml:"poll" default:"10s" doc:"Without a queue (queue.type is none): time between two looks at the last hour."`

	FullEvery Duration `yaml:"full_every" default:"24h" min:"0" doc:"Time between two listings of the whole bucket, which find imports outside span. 0s: never."`
	FullRate  int      `yaml:"full_rate" default:"10" doc:"Most list requests per second of it. Each lists 1000 keys."`
}

// Schemas are those of events' properties.
type Schemas struct {
	Dir  string `yaml:"dir" doc:"Folder with NAME.json or NAME.v2.json, by an event's name and version. It is read again when it changes."`
	Mode string `yaml:"mode" default:"off" enum:"off report enforce" doc:"What happens to an event that does not match. report: it is accepted, and a failure record is stored. enforce: it is rejected."`
}

// LLM is what language models cost.
type LLM struct {
	Prices []Price `yaml:"prices" doc:"Prices of models, in USD per million tokens. setup replaces all earlier prices by these." example:"{model: 'gpt-4o*', provider: openai, input: 2.5, cached_input: 1.25, output: 10}"`
}

// Price is that of a model, in USD per million tokens.
type Price struct {
	Model    string   `yaml:"model" doc:"Name of the model; * matches anything. The longest match wins."`
	Provider string   `yaml:"provider" doc:"Provider. Empty: any."`
	Input    float64  `yaml:"input" doc:"USD per million input tokens."`
	Cached   *float64 `yaml:"cached_input" doc:"USD per million cached input tokens. Absent: as input."`
	Output   float64  `yaml:"output" doc:"USD per million output tokens."`
}

// Status is what penstock status asks.
type Status struct {
	Admins []string  `yaml:"admins" doc:"URLs of the admin listeners of receivers and loaders. Empty: that of admin.listen."`
	TLS    ClientTLS `yaml:"tls" doc:"Files for requests to admin listeners, also of commands with --server."`
}

// Tracing sends traces of the process itself.
type Tracing struct {
	Enabled  bool   `yaml:"enabled" default:"false" doc:"Send a trace of each object, and of a sample of the requests."`
	Endpoint string `yaml:"endpoint" doc:"URL of an OTLP/HTTP collector, as http://127.0.0.1:4318; /v1/traces is added. Empty: the variables OTEL_EXPORTER_OTLP_* name it."`

	Requests       float64 `yaml:"requests" default:"0.01" doc:"Share of requests without a trace context that are traced, from 0 to 1."`
	ClientRequests float64 `yaml:"client_requests" default:"1" doc:"Share of requests that are traced if their client sends a sampled traceparent header and a known key, from 0 to 1."`
}

// Default is the configuration of an empty file: the defaults in the fields' tags.
func Default() Config {
	var cfg Config
	eachField(reflect.ValueOf(&cfg).Elem(), "", func(name string, v reflect.Value, f reflect.StructField) {
		if err := DecodeYAML([]byte(f.Tag.Get("default")), v.Addr().Interface()); err != nil {
			panic(fmt.Sprintf("default of %s: %v", name, err)) // the tag of a field above is wrong
		}
	})
	return cfg
}

// eachField calls each with the fields of a section and of the sections within it.
func eachField(section reflect.Value, name string, each func(name string, v reflect.Value, f reflect.StructField)) {
	for f := range section.Type().Fields() {
		v, field := section.FieldByIndex(f.Index), join(name, f.Tag.Get("yaml"))
		if v.Kind() == reflect.Struct {
			eachField(v, field, each)
			continue
		}
		each(field, v, f)
	}
}
