// Package pipeline holds the nouns that every stage shares: the event, the
// object and its key, the notification, the failure, and the Spec that makes
// one pipeline differ from another. It imports nothing but the standard
// library, so that stages and adapters can meet here without meeting each other.
package pipeline

import (
	"context"
	"crypto/sha1" // #nosec G505 -- for UUIDv5
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"time"
)

// Event is one record on its way from a client to a row.
//
// The byte slices are views: whoever hands an Event to a call owns them again
// when the call returns, and the callee copies what it keeps. That is what lets
// the receiver pass on parts of a request body without an allocation an event.
type Event struct {
	ID        UUID
	Project   []byte // the project that the client's key names
	Name      []byte
	SessionID []byte // empty: none
	UserID    []byte // empty: none

	// Timestamp is the client's time in milliseconds since 1970. It is NoTime if the client sent an ID without a time,
	// because the row's identity must not have a time that a resend would change.
	Timestamp  int64
	ReceivedAt int64 // the receiver's time, milliseconds since 1970

	// Seq rises by one an event within a receiver, over restarts too. The
	// batcher sets it; Receiver is set where an object is read.
	Seq      uint64
	Receiver []byte
	// Row is the event's place in its object, from 0; set where an object is read.
	Row uint32

	Properties []byte // a JSON object: all that the client sent beside the envelope
	Context    []byte // a JSON object: what the receiver knows of the client
}

// Ticket represents events that an Append has copied.
type Ticket interface {
	// Wait returns when the events are as durable as was asked of Append, or an
	// error if they were not kept. object is the key of the object that they are
	// in. It is empty unless the durability is object.
	Wait(ctx context.Context) (object string, err error)

	// Key returns the key of the object that the events become a part of. It waits until they are written to the log. If
	// they were not kept, or if ctx ends before, the key is empty.
	Key(ctx context.Context) string
}

// NoTime in Event.Timestamp means that the client sent an ID without a time.
const NoTime = int64(-1 << 63)

// Identity is what makes two rows the same event: a merge keeps one of them.
type Identity struct {
	Project, Name string
	Time          int64 // ms; see Event.IdentityTime
	ID            UUID
}

// Identity is the event's.
func (e *Event) Identity() Identity {
	return Identity{Project: string(e.Project), Name: string(e.Name), Time: e.IdentityTime(), ID: e.ID}
}

// Size is about what the event takes in memory and in a segment, in bytes.
func (e *Event) Size() int {
	return 64 + len(e.Project) + len(e.Name) + len(e.SessionID) + len(e.UserID) + len(e.Properties) + len(e.Context)
}

// UUID is an event's identity, in the byte order of RFC 9562.
type UUID [16]byte

// eventNamespace is the name space in which client ids that are not UUIDs become UUIDv5.
// It is itself the UUIDv5 of "penstock.events" in the URL name space of RFC 9562, 6.6.
var eventNamespace = UUID{0xee, 0xec, 0x39, 0x59, 0x06, 0x49, 0x5d, 0x97, 0x85, 0x6f, 0x4b, 0x11, 0x7a, 0x44, 0x4a,
	0x92}

// NewUUIDv7 makes an id for an event that came without one: its first 48 bits
// are the time, so that such ids sort as they came. The rest is of the
// runtime's ChaCha8, which the system seeds: an id has to be unlike all others,
// and is no secret.
func NewUUIDv7(ms int64) UUID {
	var u UUID
	binary.BigEndian.PutUint64(u[:], rand.Uint64())  // #nosec G404 -- ids are to be unique, not secret
	binary.BigEndian.PutUint64(u[8:], rand.Uint64()) // #nosec G404 -- ids are to be unique, not secret
	u[0], u[1], u[2] = byte(ms>>40), byte(ms>>32), byte(ms>>24)
	u[3], u[4], u[5] = byte(ms>>16), byte(ms>>8), byte(ms)
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	return u
}

// UUIDv5 is the id of an event whose client named it by something that is not
// a UUID: the same name in the same project is the same event.
func UUIDv5(project, id []byte) UUID {
	h := sha1.New() // #nosec G401 -- UUIDv5 is SHA-1 by its RFC
	h.Write(eventNamespace[:])
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(project)))
	h.Write(n[:])
	h.Write(project)
	h.Write(id)
	var u UUID
	var sum [sha1.Size]byte
	copy(u[:], h.Sum(sum[:0]))
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return u
}

// ErrNotUUID is returned by ParseUUID for any text but the 36 characters
// xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.
var ErrNotUUID = errors.New("not a UUID")

// ParseUUID reads the canonical form, upper or lower case.
func ParseUUID(s []byte) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, ErrNotUUID
	}
	bad := byte(0)
	for i, at := range &uuidDigits {
		hi, lo := nibbles[s[at]], nibbles[s[at+1]]
		bad |= hi | lo
		u[i] = hi<<4 | lo
	}
	if bad > 0x0f {
		return UUID{}, ErrNotUUID
	}
	return u, nil
}

// uuidDigits is the position of the first digit of each byte in the canonical form.
var uuidDigits = [16]uint8{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34}

// nibbles is the value of each hexadecimal digit, 0xff for any other byte.
var nibbles = func() (t [256]byte) {
	for c := range t {
		t[c] = 0xff
	}
	for v, c := range []byte("0123456789abcdef") {
		t[c] = byte(v)
	}
	for v, c := range []byte("ABCDEF") {
		t[c] = byte(10 + v)
	}
	return t
}()

// Append writes the canonical form of u behind dst.
func (u UUID) Append(dst []byte) []byte {
	for i, n := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, u[:n])
		copy(u[:], u[n:])
	}
	return dst
}

func (u UUID) String() string { return string(u.Append(make([]byte, 0, 36))) }

// TimeFormat is the form of times in keys' metadata, objects and answers: UTC, milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Millis is ms since 1970 as a time in UTC.
func Millis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
