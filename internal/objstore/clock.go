package objstore

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Offset is how far this machine's clock is ahead of the store's, by the Date of an answer: whole seconds, less what
// the way took. The request is not signed, for with a wrong clock no signature holds; any answer has a Date.
func (b *Bucket) Offset(ctx context.Context) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, b.endpoint, nil)
	if err != nil {
		return 0, fmt.Errorf("ask the store for its time: %w", err)
	}
	began := time.Now()
	resp, err := b.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask the store for its time: %w", err)
	}
	defer resp.Body.Close()
	theirs, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("ask the store for its time: %w", err)
	}
	// Round strips the monotonic reading: it is the wall clock that is compared.
	ours := began.Round(0).Add(time.Since(began) / 2)
	return ours.Sub(theirs.Add(500 * time.Millisecond)), nil
}
