// Package errcode lists the codes under which the receiver rejects events and
// requests. Answers, failure records, limits and docs/reference/errors.md all
// read one table, so a code has one status and one meaning everywhere.
package errcode

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
)

// Code says why an event or a whole request is rejected. None is no code.
type Code uint8

// Scope says what a code rejects.
type Scope uint8

// Scopes.
const (
	Event   Scope = 1 << iota // one event of a request
	Request                   // the request as a whole
)

// Row is a code's row in the table.
type Row struct {
	Code   Code
	Name   string // as clients and failure records read it
	Status int    // of the answer if the whole request is rejected
	Scope  Scope
	Retry  bool   // the same request can succeed later
	Refund bool   // the request's share of the project's limits is returned
	Kept   bool   // a failure record with the raw payload is stored
	Do     string // what the client's author or the operator should do
}

// All returns the table in the order of its codes.
func All() []Row {
	rows := slices.Clone(table[1:])
	for i := range rows {
		rows[i].Code = Code(i + 1)
	}
	return rows
}

// Named returns the code of that name, or false if there is none.
func Named(name string) (Code, bool) {
	for c, row := range table {
		if row.Name == name && c > 0 {
			return Code(c), true
		}
	}
	return None, false
}

func (c Code) String() string { return table[c].Name }

// Status is the HTTP status of a request rejected with this code.
func (c Code) Status() int { return table[c].Status }

// Retryable reports whether the same request can succeed later.
func (c Code) Retryable() bool { return table[c].Retry }

// Refunds reports whether the request costs nothing of its project's limits.
func (c Code) Refunds() bool { return table[c].Refund }

// Kept reports whether a failure record is stored.
func (c Code) Kept() bool { return table[c].Kept }

// Errorf returns an error with this code. Quoted bytes of a client become valid UTF-8.
func (c Code) Errorf(format string, args ...any) *Error {
	return &Error{c, strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")}
}

// Error rejects an event or a request.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return e.Message }

// Status is the HTTP status if the whole request is rejected.
func (e *Error) Status() int { return e.Code.Status() }

// Of returns the code and the message of an event's error.
func Of(err error) (Code, string) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code, e.Message
	}
	if e, ok := errors.AsType[*jsonscan.Error](err); ok {
		if code, ok := Named(e.Code); ok {
			return code, err.Error()
		}
	}
	return InvalidEvent, err.Error()
}

// All codes. What each is for says the table below.
const (
	None Code = iota

	InvalidJSON
	NotAnObject
	InvalidUTF8
	NulCharacter
	NumberOutOfRange
	DuplicateKey
	TooDeep
	TooManyKeys

	InvalidEvent
	MissingName
	NameNotAllowed
	WrongType
	FieldTooLong
	InvalidTimestamp
	MissingID
	InvalidID
	InvalidBase64
	UnknownType
	UnknownSpecVersion
	EventTooLarge
	SchemaViolation
	InvalidOTLP

	EmptyBody
	IncompleteBody
	InvalidEncoding
	InvalidForm
	InvalidQuery
	InvalidAttribute
	MissingEvent
	MissingEvents
	UnknownDurability

	MissingKey
	UnknownKey
	ExpiredKey
	NoSecret
	MissingSignature
	WrongSignature
	WriteNotAllowed
	DurabilityTooLow

	NotFound
	MethodNotAllowed
	Timeout
	BodyTooLarge
	DecodedTooLarge
	TooManyEvents
	TooManyFiles
	TooMuch
	UnsupportedMediaType
	UnsupportedCharset
	UnsupportedEncoding

	RateLimited
	QuotaExceeded
	KeylessLimit
	TooManyKeyless

	Busy
	Unavailable
	ClockWrong
	NotStoredYet
	Cancelled

	count
)

// Shorthands of the table.
const (
	both = Event | Request

	bad       = http.StatusBadRequest
	noKey     = http.StatusUnauthorized
	forbidden = http.StatusForbidden
	tooLarge  = http.StatusRequestEntityTooLarge
	badType   = http.StatusUnsupportedMediaType
	tooMany   = http.StatusTooManyRequests
	outage    = http.StatusServiceUnavailable
)

// wrong rejects input that a retry cannot improve, so it is kept.
func wrong(name string, status int, scope Scope, do string) Row {
	return Row{Name: name, Status: status, Scope: scope, Kept: true, Do: do}
}

// later rejects a request that the client is to send again. The client still has it, so it is not kept.
func later(name string, status int, refund bool, do string) Row {
	return Row{Name: name, Status: status, Scope: Request, Retry: true, Refund: refund, Do: do}
}

// nowhere rejects a request that brings no events to any route.
func nowhere(name string, status int, do string) Row {
	return Row{Name: name, Status: status, Scope: Request, Do: do}
}

var table = [count]Row{
	InvalidJSON: wrong("invalid_json", bad, both,
		"Send well-formed JSON. The message names the byte where reading stopped."),
	NotAnObject:  wrong("not_an_object", bad, both, "Send each event as a JSON object."),
	InvalidUTF8:  wrong("invalid_utf8", bad, both, "Encode strings as UTF-8."),
	NulCharacter: wrong("nul_character", bad, both, "Remove `\\u0000` from the key."),
	NumberOutOfRange: wrong("number_out_of_range", bad, both,
		"Send numbers that fit into 64 bits, or send them as strings."),
	DuplicateKey: wrong("duplicate_key", bad, both,
		"Give every member of an object its own name. Keys with dots count as paths."),
	TooDeep:     wrong("too_deep", bad, both, "Nest the event less deeply, or raise `receiver.max_depth`."),
	TooManyKeys: wrong("too_many_keys", bad, both, "Send fewer keys in one event."),

	InvalidEvent: wrong("invalid_event", bad, both,
		"Read the message; the event breaks a rule that has no code."),
	MissingName: wrong("missing_name", bad, both,
		"Name the event. The message names the member that holds the name."),
	NameNotAllowed: wrong("name_not_allowed", bad, both,
		"Add the name to the project's `names`, or stop sending the event."),
	WrongType:    wrong("wrong_type", bad, both, "Send the member with the type that the message names."),
	FieldTooLong: wrong("field_too_long", bad, both, "Shorten the value to the limit in the message."),
	InvalidTimestamp: wrong("invalid_timestamp", bad, both,
		"Send a time as RFC 3339 or as seconds or milliseconds since 1970."),
	MissingID: wrong("missing_id", bad, both, "Give the event the ids that its protocol requires."),
	InvalidID: wrong("invalid_id", bad, both,
		"Send trace and span ids of the right length, in hexadecimal in JSON."),
	InvalidBase64: wrong("invalid_base64", bad, both,
		"Send standard base64 with padding and without line ends."),
	UnknownType: wrong("unknown_type", bad, both,
		"Use a call type that Segment's API has: track, identify, page, screen, group or alias."),
	UnknownSpecVersion: wrong("unknown_specversion", bad, both, "Send CloudEvents 1.0."),
	EventTooLarge: wrong("event_too_large", bad, both,
		"Send a smaller event, or raise `receiver.max_event`."),
	SchemaViolation: wrong("schema_violation", bad, both,
		"Make the properties fit the schema of the event's name, or change the schema."),
	InvalidOTLP: wrong("invalid_otlp", bad, both,
		"Send OTLP to the route of its signal, as protobuf or as OTLP's JSON."),

	EmptyBody: wrong("empty_body", bad, Request, "Send events in the request's body."),
	IncompleteBody: wrong("incomplete_body", bad, Request,
		"Send the whole body. The connection ended before it was complete."),
	InvalidEncoding: wrong("invalid_encoding", bad, Request,
		"Compress the body as `Content-Encoding` says, or leave the header out."),
	InvalidForm:  wrong("invalid_form", bad, Request, "Encode the form as the message describes."),
	InvalidQuery: wrong("invalid_query", bad, Request, "Percent-encode the query."),
	InvalidAttribute: wrong("invalid_attribute", bad, Request,
		"Do not send the data or their type as `Ce-` headers."),
	MissingEvent: wrong("missing_event", bad, Request,
		"Add the part `event` with the event's JSON to the form."),
	MissingEvents: wrong("missing_events", bad, Request,
		"Put the events into the array that the message names."),
	UnknownDurability: wrong("unknown_durability", bad, Request,
		"Set `durability` to memory, disk or object."),

	MissingKey: wrong("missing_key", noKey, Request, "Send the API key where the protocol expects it."),
	UnknownKey: wrong("unknown_key", noKey, Request,
		"Check the key with `penstock keys list`, or add it with `penstock keys add`."),
	ExpiredKey: wrong("expired_key", noKey, Request,
		"Use the key's successor; see `penstock keys rotate`."),
	NoSecret: wrong("no_secret", noKey, Request,
		"Set the key's `secret`, so that signatures can be checked."),
	MissingSignature: wrong("missing_signature", noKey, Request,
		"Send the HMAC-SHA256 of the body in `Authorization`."),
	WrongSignature: wrong("wrong_signature", noKey, Request,
		"Sign the bytes of the body as they are sent, with the game's secret."),
	WriteNotAllowed: wrong("write_not_allowed", forbidden, Request, "Use a key with the scope `write`."),
	DurabilityTooLow: wrong("durability_too_low", forbidden, Request,
		"Ask for the key's minimum durability, or for none."),

	NotFound: nowhere("not_found", http.StatusNotFound,
		"Check the path; docs/guides/sdks.md lists all routes."),
	MethodNotAllowed: nowhere("method_not_allowed", http.StatusMethodNotAllowed,
		"Use a method that the `Allow` header lists."),
	Timeout: {Name: "timeout", Status: http.StatusRequestTimeout, Scope: Request, Retry: true, Kept: true,
		Do: "Send the body faster, in smaller requests, or raise `receiver.read_timeout`."},
	BodyTooLarge: wrong("body_too_large", tooLarge, Request,
		"Send fewer events at once, or raise `receiver.max_body`. For a small key, create it with `--large`."),
	DecodedTooLarge: wrong("decoded_too_large", tooLarge, Request,
		"Send fewer events at once, or raise `receiver.max_decoded`."),
	TooManyEvents: wrong("too_many_events", tooLarge, Request,
		"Send fewer events at once, or raise `receiver.max_events`."),
	TooManyFiles: wrong("too_many_files", tooLarge, Request, "Send fewer files in one form."),
	TooMuch: wrong("too_much", tooLarge, Request,
		"Send fewer events at once: their rows do not fit into memory."),
	UnsupportedMediaType: wrong("unsupported_media_type", badType, Request,
		"Send `application/json` or `application/x-ndjson`, or the type that the protocol uses."),
	UnsupportedCharset: wrong("unsupported_charset", badType, Request, "Send UTF-8."),
	UnsupportedEncoding: wrong("unsupported_encoding", badType, Request,
		"Compress with gzip, zstd or deflate, or not at all."),

	RateLimited: later("rate_limited", tooMany, true,
		"Send the same request again after `Retry-After`. The operator can raise the project's `rate`."),
	QuotaExceeded: later("quota_exceeded", tooMany, true,
		"Send the same request again after `Retry-After`. The operator can raise the project's `quota`."),
	KeylessLimit: later("keyless_limit", tooMany, true,
		"Put the key into a header or at the beginning of the body, and send the request again."),
	TooManyKeyless: later("too_many_keyless", tooMany, true,
		"Put the key into a header, or send fewer requests at once from one address."),

	Busy: later("busy", outage, true,
		"Send the same request again after `Retry-After`. The receiver's memory or spool is full."),
	Unavailable: later("unavailable", outage, true,
		"Send the same request again after `Retry-After`. The receiver's disk cannot take events."),
	ClockWrong: later("clock_wrong", outage, true,
		"Send the same request again after `Retry-After`. The operator sets the receiver's clock."),
	NotStoredYet: later("not_stored_yet", outage, false,
		"Send the same request again: its events are accepted, but not yet in the bucket. With event ids they count once."),
	Cancelled: later("cancelled", outage, false,
		"Send the same request again: the client closed the connection."),
}
