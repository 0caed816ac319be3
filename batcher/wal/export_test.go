package wal

// What the tests, which stand outside for the sake of waltest, need of the format.
const (
	RecordHeader = recordHeader
	RecordMagic  = recordMagic
	ScanWindow   = scanWindow
	SeqName      = seqName
	EndSize      = endSize
	FreeMagic    = freeMagic
)

// AddSalt and AppendEnd are for images of segments.
var (
	AddSalt   = addSalt
	AppendEnd = appendEnd
)

func (h Header) Append(dst []byte) []byte { return h.append(dst) }

// Salted is the header with a salt.
func (h Header) Salted(salt uint64) Header {
	h.salt = salt
	return h
}
