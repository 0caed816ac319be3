package batcher

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/penstock/penstock/batcher/wal"
)

// FreeFolder locks the first of base/0, base/1, … that no process uses, until Close. It is for processes that share a
// configuration and have no lasting name. The next process that locks the folder replays what was left in it.
func FreeFolder(base string) (dir string, lock io.Closer, err error) {
	fs := wal.OS{}
	for i := range 1000 {
		dir = filepath.Join(base, strconv.Itoa(i))
		if err := fs.MkdirAll(dir); err != nil {
			return "", nil, fmt.Errorf("find a free folder: %w", err)
		}
		lock, err := fs.Lock(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("find a free folder: %w", err)
		}
		return dir, lock, nil
	}
	return "", nil, fmt.Errorf("find a free folder: 1000 of them below %s are in use", base)
}
