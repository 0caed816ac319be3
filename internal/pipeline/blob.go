package pipeline

import (
	"encoding/json"
	"io"
	"strings"
)

// Blob is a large value on its way out of its event's row. Those of one batch
// are one object, and a reference is left in the event.
type Blob struct {
	Event int // among those that are appended with it
	At    int // in the event's properties: where BlobHole holds its place. A later blob of the event has a later one

	Kind        string                  // one of the Blob… constants: how the value is made of the bytes again
	ContentType string                  // of the bytes
	Name        string                  // of a file, if it has one
	Size        int64                   // bytes, at most
	Write       func(w io.Writer) error // writes the bytes; called once
}

// What a blob was in its event.
const (
	BlobText    = "text"     // a string: the bytes are its content
	BlobJSON    = "json"     // any other value: the bytes are its JSON
	BlobDataURL = "data_url" // a string that is a data URL with base64: the bytes are the data, decoded
	BlobFile    = "file"     // a part of a form, or a CloudEvent's binary data: it never was JSON
)

// BlobHole marks the place of a future reference.
const BlobHole = "null"

// BlobKeyName is the only member of an object that is a reference to a blob.
const BlobKeyName = "$blob"

// BlobRef is the reference in the row: {"$blob":{…}}.
type BlobRef struct {
	Object      string   `json:"object"`
	Range       [2]int64 `json:"range"` // first and last byte, as HTTP's Range has them
	Bytes       int64    `json:"bytes"`
	SHA256      string   `json:"sha256"` // hex
	ContentType string   `json:"content_type"`
	Kind        string   `json:"kind"`
	Name        string   `json:"name,omitempty"`
}

// Append writes the reference to the blob.
func (r BlobRef) Append(b []byte) []byte {
	text, _ := json.Marshal(r) // strings and numbers: it cannot fail
	b = append(b, `{"`+BlobKeyName+`":`...)
	b = append(b, text...)
	return append(b, '}')
}

// BlobPrefix goes before a pipeline's own.
const BlobPrefix = "blobs/"

const blobFormat = ".blobs"

// BlobKey is the key of the object with the blobs of a batch.
func BlobKey(batch Key) string {
	return BlobPrefix + strings.TrimSuffix(batch.String(), "."+string(batch.Format)) + blobFormat
}

// IsBlobKey reports whether a key is that of a batch's blobs.
func IsBlobKey(key string) bool {
	return strings.HasPrefix(key, BlobPrefix) && strings.HasSuffix(key, blobFormat)
}
