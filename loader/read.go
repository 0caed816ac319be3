package loader

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
)

// Read calls each with the events of an object, in order, and returns the object's metadata. An event is valid only
// during the call.
func (s *Source) Read(ctx context.Context, key string, each func(*pipeline.Event) error) (pipeline.Object, error) {
	return s.ReadRows(ctx, key, each, func(foreign.Rejected) error { return nil })
}

// ReadRows is Read, and calls rejected with each row of a foreign file that is not a valid event. Rejected rows may
// arrive some thousand rows late.
func (s *Source) ReadRows(ctx context.Context, key string, each func(*pipeline.Event) error,
	rejected func(foreign.Rejected) error) (pipeline.Object, error) {
	c, err := s.fetch(ctx, pipeline.Notification{Key: key})
	if err != nil {
		return c.object, err
	}
	defer c.Close()
	if err := s.prepare(ctx, c); err != nil {
		return c.object, fmt.Errorf("read %s: %w", key, err)
	}
	dec, err := c.decoder()
	if err != nil {
		return c.object, fmt.Errorf("read %s: %w", key, err)
	}
	defer dec.Close()
	var events []pipeline.Event
	for {
		events, err = dec.Decode(events[:0], codec.Limit{Rows: 10_000, Bytes: 16 << 20})
		if errors.Is(err, io.EOF) {
			return c.object, nil
		}
		if err != nil {
			return c.object, fmt.Errorf("read %s: %w", key, err)
		}
		for i := range events {
			if err := each(&events[i]); err != nil {
				return c.object, err
			}
		}
		if from, ok := dec.(*foreign.Decoder); ok {
			for _, row := range from.Rejected() {
				if err := rejected(row); err != nil {
					return c.object, err
				}
			}
		}
	}
}
