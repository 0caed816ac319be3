package codec

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// A wrong clock or damaged bytes must not put rows into another century's partitions.
func TestReceivedAtIsBounded(t *testing.T) {
	at := func(year int) int64 { return time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC).UnixMilli() }
	for _, f := range formats {
		for _, tt := range []struct {
			ms int64
			ok bool
		}{{at(2020), true}, {at(2026), true}, {at(2099), true}, {0, false}, {at(1970), false}, {at(2019), false},
			{at(2100), false}, {at(2156), false}} {
			events := gameEvents(3)
			events[2].ReceivedAt = tt.ms
			object := encode(t, f, events, 3)
			dec, err := NewDecoder(bytes.NewReader(object), int64(len(object)), f)
			if err != nil {
				t.Fatal(err)
			}
			defer dec.Close()
			if _, err := dec.Decode(nil, noLimit); (err == nil) != tt.ok || !tt.ok && !errors.Is(err, pipeline.ErrReceived) {
				t.Errorf("%s, received at %d: %v", f, tt.ms, err)
			}
			again, err := NewDecoder(bytes.NewReader(object), int64(len(object)), f)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			typed, isTyped := again.(TypedDecoder)
			if isTyped != (f == pipeline.Parquet) {
				t.Errorf("%s: typed %v", f, isTyped)
			}
			if isTyped {
				if _, _, _, err := typed.DecodeTyped(nil, noLimit); (err == nil) != tt.ok {
					t.Errorf("%s in columns, received at %d: %v", f, tt.ms, err)
				}
			}
		}
	}
}
