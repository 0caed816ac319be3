package wal

// What the tests, which stand outside for the sake of waltest, need of the format.
const (
	RecordHeader = recordHeader
	RecordMagic  = recordMagic
	ScanWindow   = scanWindow
	SeqName      = seqName
)

func (h Header) Append(dst []byte) []byte { return h.append(dst) }
