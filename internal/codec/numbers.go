package codec

import (
	"encoding/binary"
	"math/bits"
)

// numbers is a list of unsigned numbers. Each takes as many bytes as the largest one needs, because a row group is held
// in memory until its last row arrives.
type numbers struct {
	n     int
	width int // bytes of a number: 0 to 4, or 8
	bytes []byte
}

func (l *numbers) add(v uint64) {
	if v>>(8*l.width) != 0 {
		l.widen(v)
	}
	l.n++
	switch l.width {
	case 0:
	case 1:
		l.bytes = append(l.bytes, byte(v))
	case 2:
		l.bytes = binary.LittleEndian.AppendUint16(l.bytes, uint16(v))
	case 3:
		l.bytes = append(l.bytes, byte(v), byte(v>>8), byte(v>>16))
	case 4:
		l.bytes = binary.LittleEndian.AppendUint32(l.bytes, uint32(v))
	default:
		l.bytes = binary.LittleEndian.AppendUint64(l.bytes, v)
	}
}

// widen makes all numbers wide enough for v.
func (l *numbers) widen(v uint64) {
	old := *l
	if l.width = (bits.Len64(v) + 7) / 8; l.width > 4 {
		l.width = 8
	}
	l.bytes = resized(l.bytes, l.n*l.width)
	copy(l.bytes, old.bytes)
	old.bytes = l.bytes
	var b [8]byte
	for i := l.n - 1; i >= 0; i-- { // backwards, because a number's new place is not before its old one
		binary.LittleEndian.PutUint64(b[:], old.at(uint32(i)))
		copy(l.bytes[i*l.width:], b[:l.width])
	}
}

func (l *numbers) at(i uint32) uint64 {
	switch b := l.bytes; l.width {
	case 0:
		return 0
	case 1:
		return uint64(b[i])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b[2*i:]))
	case 3:
		b = b[3*i : 3*i+3]
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
	case 4:
		return uint64(binary.LittleEndian.Uint32(b[4*i:]))
	default:
		return binary.LittleEndian.Uint64(b[8*i:])
	}
}

// drop removes the last number.
func (l *numbers) drop() {
	l.n--
	l.bytes = l.bytes[:l.n*l.width]
}

// reset removes all numbers. Those to come are likely as wide.
func (l *numbers) reset() { l.n, l.bytes = 0, emptied(l.bytes) }

// zigzag returns an unsigned number that is small if v is near 0. zagzig is its inverse.
func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func zagzig(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
