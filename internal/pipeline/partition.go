package pipeline

import (
	"encoding/binary"
	"time"
)

// Partitions of the tables are weeks of the time in an event's identity. So a resend is in the partition of the first
// copy, and merges collapse them. Times outside of these years, the end exclusive, share one partition: random times
// must not make partitions without limit. The span is fixed, because a resend may come at any time.
const (
	minPartitioned = 1262304000000 // 2010-01-01
	maxPartitioned = 2840140800000 // 2060-01-01
)

// PartitionUnit names what a partition is of. Other partitions cut objects at other rows: it must change with them.
const PartitionUnit = "week"

const weekMillis = 7 * dayMillis

// firstMonday is 1970-01-05.
const firstMonday = 4 * dayMillis

// Partition returns the partition of an identity's time: the Monday on which its week begins, in milliseconds since
// 1970. Events without a time are in partition 0.
func Partition(identityTime int64) int64 {
	if !partitioned(identityTime) {
		return 0
	}
	return identityTime - (identityTime-firstMonday)%weekMillis
}

func partitioned(ms int64) bool { return ms >= minPartitioned && ms < maxPartitioned }

// IdentityTime returns the time in the event's identity, in milliseconds since 1970. It is the client's time. If the
// client sent none, it is the time in a UUIDv7, or else 0: never the time of receipt, which differs in a resend.
func (e *Event) IdentityTime() int64 {
	if e.Timestamp != NoTime {
		return e.Timestamp
	}
	if ms, ok := e.ID.time(); ok {
		return ms
	}
	return 0
}

// time returns the time in a UUIDv7. Some ids only look like one: their times are mostly outside of the span of
// partitions, and count as none.
func (u *UUID) time() (ms int64, ok bool) {
	if u[6]>>4 != 7 || u[8]>>6 != 2 {
		return 0, false
	}
	ms = int64(binary.BigEndian.Uint64(u[:]) >> 16)
	return ms, partitioned(ms)
}

// Time returns the time that the event has in the table: that of its identity, or that of its receipt if it has none.
func (e *Event) Time() int64 {
	if ms := e.IdentityTime(); ms != 0 || e.Timestamp == 0 {
		return ms
	}
	return e.ReceivedAt
}

// Rows are rows of an object, of one generation.
type Rows struct {
	Object     string
	Generation uint32
	First, End int64    // their places in the object; End is not among them
	Received   [2]int64 // the first and the last received_at, ms
	Partitions []int64  // in which they are; nil: in any
}

// Expiry says which rows a table's TTL deletes. A zero time: none.
type Expiry struct {
	Received time.Time // those received before
	Time     time.Time // those with an earlier timestamp
}

// Covers reports whether all rows expire of which the newest were received and have a timestamp at these times, in ms.
func (x Expiry) Covers(received, timestamp int64) bool {
	return Millis(received).Before(x.Received) || Millis(timestamp).Before(x.Time)
}
