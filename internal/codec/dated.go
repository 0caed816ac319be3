package codec

import (
	"fmt"

	"github.com/penstock/penstock/internal/pipeline"
)

// dated rejects objects with a received_at that no receiver with a correct clock can write. Such a row would land in a
// partition that nobody reads. A year beyond 2149 would even wrap into another century.
type dated struct{ Decoder }

func (d dated) Decode(dst []pipeline.Event, limit Limit) ([]pipeline.Event, error) {
	events, err := d.Decoder.Decode(dst, limit)
	if err == nil {
		err = checkReceived(events[len(dst):])
	}
	return events, err
}

// datedTyped is dated for typed decoders.
type datedTyped struct {
	dated
	typed TypedDecoder
}

func (d datedTyped) DecodeTyped(dst []pipeline.Event, limit Limit) ([]pipeline.Event, []*pipeline.Typed, int, error) {
	events, typed, bytes, err := d.typed.DecodeTyped(dst, limit)
	if err == nil {
		err = checkReceived(events[len(dst):])
	}
	return events, typed, bytes, err
}

func checkReceived(events []pipeline.Event) error {
	for i := range events {
		if err := pipeline.CheckReceived(events[i].ReceivedAt); err != nil {
			return fmt.Errorf("row %d, %d ms since 1970: %w", events[i].Row, events[i].ReceivedAt, err)
		}
	}
	return nil
}
