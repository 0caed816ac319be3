package wal

// Parts of the format for the tests, which are an external package because of waltest.
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
