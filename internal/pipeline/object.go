package pipeline

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Format is the encoding of an object, as it ends the object's key.
type Format string

// The formats that Penstock writes.
const (
	Parquet Format = "parquet"
	NDJSON  Format = "ndjson.zst"
)

// ParseFormat reads the name that a config or a flag gives to a format.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "parquet":
		return Parquet, nil
	case "ndjson", string(NDJSON):
		return NDJSON, nil
	}
	return "", fmt.Errorf("unknown format %q: parquet or ndjson", s)
}

// FormatOf returns the format of an object of ours by its key.
func FormatOf(key string) (Format, bool) {
	for _, f := range []Format{Parquet, NDJSON} {
		if strings.HasSuffix(key, "."+string(f)) {
			return f, true
		}
	}
	return "", false
}

// Key names an object. It is fixed when the batch begins, so that a crash at
// any later point leads to the same name and never to a second object:
//
//	events/dt=2026-11-22/hr=03/20261122T034512.345Z-game1-17.parquet
//	prefix    day        hour  time the batch began  receiver first seq
//
// Day and hour are those of the time, in UTC, so keys of one prefix sort by time.
type Key struct {
	Prefix   string    // of its pipeline, with the slash: "events/"
	Time     time.Time // UTC, milliseconds; when the batch began
	Receiver string    // see ValidReceiver
	Seq      uint64    // of the batch's first event
	Format   Format
}

const keyTime = "20060102T150405.000Z"

// String is the key in the bucket.
func (k Key) String() string {
	t := k.Time.UTC()
	return fmt.Sprintf("%sdt=%s/hr=%02d/%s-%s-%d.%s",
		k.Prefix, t.Format("2006-01-02"), t.Hour(), t.Format(keyTime), k.Receiver, k.Seq, k.Format)
}

// ParseKey is the inverse of Key.String. It refuses whatever String would not
// have written, so that a foreign file is told from an object of ours.
func ParseKey(s string) (Key, error) {
	bad := func(why string) (Key, error) { return Key{}, fmt.Errorf("parse key %q: %s", s, why) }
	at := strings.LastIndex(s, "dt=")
	if at <= 0 || s[at-1] != '/' {
		return bad("no dt= folder below a prefix")
	}
	k := Key{Prefix: s[:at]}
	parts := strings.Split(s[at:], "/")
	if len(parts) != 3 {
		return bad("want dt=…/hr=…/name")
	}
	name, ext, ok := strings.Cut(parts[2], "Z-")
	if !ok {
		return bad("want time-receiver-seq.format")
	}
	t, err := time.Parse(keyTime, name+"Z")
	if err != nil {
		return bad("time is not of the form " + keyTime)
	}
	k.Time = t
	f, ok := FormatOf(ext)
	if !ok {
		return bad("unknown format")
	}
	k.Format = f
	rest := strings.TrimSuffix(ext, "."+string(f))
	dash := strings.LastIndexByte(rest, '-')
	if dash < 1 {
		return bad("want time-receiver-seq.format")
	}
	k.Receiver = rest[:dash]
	if err := ValidReceiver(k.Receiver); err != nil {
		return bad(err.Error())
	}
	if k.Seq, err = strconv.ParseUint(rest[dash+1:], 10, 64); err != nil {
		return bad("seq is not a number")
	}
	if k.String() != s {
		return bad("not as Penstock writes it")
	}
	return k, nil
}

// ValidReceiver reports whether a receiver's name can be part of a key: 1 to 64 letters, digits, dots, dashes and
// underscores, the first a letter or digit.
func ValidReceiver(name string) error {
	if len(name) == 0 || len(name) > 64 {
		return fmt.Errorf("receiver name %q: want 1 to 64 characters", name)
	}
	for i, c := range []byte(name) {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '.' && c != '-' && c != '_') {
			return fmt.Errorf("receiver name %q: character %q at %d (want letters, digits, '.', '-', '_')", name, c, i)
		}
	}
	return nil
}

// Object is what the store says of an object, with the metadata that we gave it.
type Object struct {
	Key      string
	ETag     string // without quotes
	Size     int64  // bytes
	Modified time.Time
	Encoding string // Content-Encoding; empty: none, or a listing, which does not say it
	Meta     Meta   // zero for a foreign object
}

// IsData reports whether to load an object below a pipeline's prefix. Names and folders that begin with "_" or "." are
// notes and temporary files of other programs (Hadoop, Spark, Hive). A key that ends in "/" or "$folder$" is a folder.
func IsData(prefix, key string) bool {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok || rest == "" || strings.HasSuffix(rest, "/") || strings.HasSuffix(rest, "$folder$") {
		return false
	}
	for part := range strings.SplitSeq(rest, "/") {
		if strings.HasPrefix(part, "_") || strings.HasPrefix(part, ".") {
			return false
		}
	}
	return true
}

// ConflictError says that another object than the one to be put has the key.
type ConflictError struct{ Found Object }

func (e ConflictError) Error() string {
	return fmt.Sprintf("another object has the key %s (%d bytes, sha256 %s)", e.Found.Key, e.Found.Size,
		e.Found.Meta.SHA256)
}

// The values of RefusedError.Missing.
const (
	MissingGet         = "s3:GetObject"
	MissingPut         = "s3:PutObject"
	MissingConditional = "conditional PUT"
	MissingOther       = "other"
)

// RefusedError means that the store answers and refuses something that Penstock needs to store an object. An immediate
// retry does not help: somebody has to change the store or the access key.
type RefusedError struct {
	Missing string // a right or a feature, one of the constants above
	Err     error  // what the store answered, and what to do
}

func (e RefusedError) Error() string { return e.Err.Error() }
func (e RefusedError) Unwrap() error { return e.Err }

// SchemaVersion is the layout of the objects that this version writes. 2 added
// typed columns to Parquet, 3 names them so that no two names differ only in
// case. Objects of all layouts are read.
const SchemaVersion = 3

// Meta is the metadata of an object (x-amz-meta-penstock-…).
type Meta struct {
	Schema        int
	Rows          int64
	FirstSeq      uint64
	FirstReceived int64 // ms since 1970
	LastReceived  int64
	BlobBytes     int64  // of the object with its events' blobs, 0: there is none
	SHA256        string // hex, of the object's bytes: an ETag is no checksum (multipart, KMS)
}

const metaPrefix = "penstock-"

// Map is the metadata as headers, lower case as stores return it.
func (m Meta) Map() map[string]string {
	h := map[string]string{
		metaPrefix + "schema":         strconv.Itoa(m.Schema),
		metaPrefix + "rows":           strconv.FormatInt(m.Rows, 10),
		metaPrefix + "first-seq":      strconv.FormatUint(m.FirstSeq, 10),
		metaPrefix + "first-received": Millis(m.FirstReceived).Format(TimeFormat),
		metaPrefix + "last-received":  Millis(m.LastReceived).Format(TimeFormat),
		metaPrefix + "sha256":         m.SHA256,
	}
	if m.BlobBytes > 0 {
		h[metaPrefix+"blob-bytes"] = strconv.FormatInt(m.BlobBytes, 10)
	}
	return h
}

// ParseMeta reads metadata back. An object without any of ours gives a zero
// Meta and no error; broken metadata of ours is an error.
func ParseMeta(in map[string]string) (Meta, error) {
	h := make(map[string]string, len(in))
	for k, v := range in {
		if k, ok := strings.CutPrefix(strings.ToLower(k), metaPrefix); ok {
			h[k] = v
		}
	}
	var m Meta
	if len(h) == 0 {
		return m, nil
	}
	var err error
	if m.Schema, err = strconv.Atoi(h["schema"]); err != nil {
		return Meta{}, fmt.Errorf("metadata schema %q: not a number", h["schema"])
	}
	if m.Rows, err = strconv.ParseInt(h["rows"], 10, 64); err != nil || m.Rows < 0 {
		return Meta{}, fmt.Errorf("metadata rows %q: not a count", h["rows"])
	}
	if m.FirstSeq, err = strconv.ParseUint(h["first-seq"], 10, 64); err != nil {
		return Meta{}, fmt.Errorf("metadata first-seq %q: not a number", h["first-seq"])
	}
	if text, ok := h["blob-bytes"]; ok { // objects without blobs, and those of before, have none
		if m.BlobBytes, err = strconv.ParseInt(text, 10, 64); err != nil || m.BlobBytes < 0 {
			return Meta{}, fmt.Errorf("metadata blob-bytes %q: not a size", text)
		}
	}
	for name, at := range map[string]*int64{"first-received": &m.FirstReceived, "last-received": &m.LastReceived} {
		t, err := time.Parse(TimeFormat, h[name])
		if err != nil {
			return Meta{}, fmt.Errorf("metadata %s %q: not a time", name, h[name])
		}
		*at = t.UnixMilli()
	}
	if m.SHA256 = h["sha256"]; len(m.SHA256) != 64 {
		return Meta{}, fmt.Errorf("metadata sha256 %q: not a SHA-256 in hex", m.SHA256)
	}
	return m, nil
}
