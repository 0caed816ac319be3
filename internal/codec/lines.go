package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Lines reads a text line by line.
type Lines struct {
	In  *bufio.Reader
	Max int // longest line, in bytes
	N   int // number of the last line read, from 1

	long []byte
}

// Next returns the next line that is not empty, without its line end. It is valid until the next call.
func (l *Lines) Next() ([]byte, error) {
	for {
		l.N++
		line, err := l.In.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			l.long = l.long[:0]
			for errors.Is(err, bufio.ErrBufferFull) && len(l.long) <= l.Max {
				l.long = append(l.long, line...)
				line, err = l.In.ReadSlice('\n')
			}
			l.long = append(l.long, line...)
			line = l.long
		}
		if len(line) > l.Max {
			return nil, fmt.Errorf("a line is longer than %d bytes", l.Max)
		}
		if err != nil && (err != io.EOF || len(line) == 0) {
			return nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			return line, nil
		}
	}
}
