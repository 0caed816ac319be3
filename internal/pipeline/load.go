package pipeline

import (
	"fmt"
	"time"
)

// LoadState is how far an object has come into the table.
type LoadState uint8

// The states, by their names in the ledger.
const (
	Loading LoadState = iota // begun, and how far it came is not known
	Failed                   // the last attempt failed through the object's own fault; another follows
	Dead                     // given up: a dead letter, until it is redriven or dropped
	Dropped                  // an operator has decided that it shall not be loaded
	Loaded

	LoadStates // how many there are
)

var stateNames = [LoadStates]string{"loading", "failed", "dead", "dropped", "loaded"}

func (s LoadState) String() string { return stateNames[s] }

// ParseLoadState is the inverse of String.
func ParseLoadState(name string) (LoadState, error) {
	for i, n := range stateNames {
		if n == name {
			return LoadState(i), nil
		}
	}
	return 0, fmt.Errorf("unknown state %q of a load", name)
}

// Load is an object's entry in the ledger.
type Load struct {
	Key        string
	ETag       string
	Generation uint32 // raised when the object's rows are to be replaced
	State      LoadState
	Pipeline   string
	Rows       uint64 // that it brought, without those refused
	Refused    []uint32
	Bytes      uint64 // of the object
	ChunkRows  uint32 // rows of an insert at most; the same on every attempt
	ChunkBytes uint32 // bytes of its events in memory, likewise
	Attempts   uint32 // begun; only ever rises
	Failures   uint32 // attempts that failed through its own fault, since it was last redriven
	Unfinished uint32 // attempts in a row that began and never ended: their loaders were killed
	Code       string // of the last failure, for machines
	Error      string // of the last failure, or why it was dropped
	Loader     string
	Job        string // of the re-ingest that replaced it last
	// What its chunks follow from beside its bytes: the partitions and, if it is foreign, how it is read. Another reading
	// cuts it elsewhere.
	Reading   string
	Received  time.Time // received_at of the newest event in it
	FirstFail time.Time // zero: it never failed
	Started   time.Time // the last attempt
	Finished  time.Time // zero: the last attempt has not ended
}

// Version orders an object's entries: the highest counts. First the generation,
// then whether it is loaded, then the attempt, then what became of the attempt:
// a late `loading` hides nothing, and an attempt after a dead letter hides that.
func (l Load) Version() uint64 {
	loaded, state := uint64(1), uint64(l.State)
	if l.State == Loaded {
		loaded, state = 2, 0
	}
	return uint64(l.Generation)<<32 | loaded<<24 | uint64(min(l.Attempts, 1<<22-1))<<2 | state
}

// Token begins the deduplication tokens of the object's chunks.
func (l Load) Token() string {
	return fmt.Sprintf("%s@%s/%s/%d", l.Key, l.ETag, l.Pipeline, l.Generation)
}

// DeadLetter says that an object was given up, or is failing, and why. It carries no data: the object is in the bucket.
type DeadLetter struct {
	Key      string    `json:"key"`
	ETag     string    `json:"etag"`
	Pipeline string    `json:"pipeline"`
	State    string    `json:"state"` // dead, or failed: it will be tried again
	Code     string    `json:"code"`
	Reason   string    `json:"reason"`
	Attempts uint32    `json:"attempts"`
	Failures uint32    `json:"failures"`
	First    time.Time `json:"first_failure"`
	Last     time.Time `json:"last_failure"`
	Token    string    `json:"token"`
}

// DeadLetter is the entry as one.
func (l Load) DeadLetter() DeadLetter {
	return DeadLetter{Key: l.Key, ETag: l.ETag, Pipeline: l.Pipeline, State: l.State.String(), Code: l.Code,
		Reason: l.Error, Attempts: l.Attempts, Failures: l.Failures, First: l.FirstFail, Last: l.Finished, Token: l.Token()}
}

// FileError says that a file cannot be read as what it is.
type FileError struct {
	// for machines: unknown_format, unsupported_compression, unreadable_object, store_unreachable, unsupported_key,
	// invalid_metadata
	Code  string
	Final bool // no later attempt can, as long as the file and its key stay as they are
	Err   error
}

func (e *FileError) Error() string { return e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }
