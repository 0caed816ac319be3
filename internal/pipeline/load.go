package pipeline

import "time"

// Load is an object's entry in the ledger: how far a loader has come with it.
type Load struct {
	Key        string
	ETag       string
	Generation uint32 // raised when the object's rows are to be replaced
	Loaded     bool   // false: begun, and how far it came is not known
	Pipeline   string
	Rows       uint64
	Bytes      uint64 // of the object
	ChunkRows  uint32 // rows of an insert at most; the same on every attempt
	ChunkBytes uint32 // bytes of its events in memory, likewise
	Attempts   uint32
	Error      string // of the attempt before
	Loader     string
	Received   time.Time // received_at of the newest event in it
	Started    time.Time
	Finished   time.Time
}
