// Package audit finds objects that are not loaded, or loaded wrongly. It reads the bucket, the load ledger and the
// table, and loads nothing.
//
// A sweep compares the bucket with the ledger and enqueues objects that are not loaded (Sweep, FullSweep). Verify
// compares all three. Plan decides what a re-ingest does with each object. All of them list the bucket through a Scope.
package audit
