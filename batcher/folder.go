package batcher

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/penstock/penstock/batcher/wal"
)

// FreeFolder is the first of base/0, base/1, … that no process uses: for
// processes of which several share a configuration and none has a name that
// lasts. What one of them has left there, the next one to take it replays.
func FreeFolder(base string) (string, error) {
	fs := wal.OS{}
	for i := range 1000 {
		dir := filepath.Join(base, strconv.Itoa(i))
		if err := fs.MkdirAll(dir); err != nil {
			return "", fmt.Errorf("find a free folder: %w", err)
		}
		lock, err := fs.Lock(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("find a free folder: %w", err)
		}
		return dir, lock.Close()
	}
	return "", fmt.Errorf("find a free folder: 1000 of them below %s are in use", base)
}
