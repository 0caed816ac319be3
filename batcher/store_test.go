package batcher

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
)

// fakeStore is a bucket in memory with the contract of Store.
type fakeStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	meta    map[string]pipeline.Meta
	order   []string // keys as they were stored
	puts    int
	broken  map[uint64]error // events with wrong blobs, found by stored

	rate  float64                              // of PUTs that fail; half of those store all the same
	rand  *rand.Rand                           // for rate
	delay time.Duration                        // of each PUT
	fail  func(key string) (stored, err error) // stored: the object is kept, and the answer lost
}

func newStore() *fakeStore {
	return &fakeStore{objects: map[string][]byte{}, meta: map[string]pipeline.Meta{}, rand: rand.New(rand.NewPCG(5, 6))}
}

var errStore = errors.New("the store is away")

func (s *fakeStore) Put(ctx context.Context, key string, body io.ReadSeeker, size int64,
	meta pipeline.Meta) (pipeline.Object, error) {
	if s.delay > 0 {
		select {
		case <-time.After(s.delay):
		case <-ctx.Done():
			return pipeline.Object{}, ctx.Err()
		}
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return pipeline.Object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	sum := sha256.Sum256(b)
	if int64(len(b)) != size || hex.EncodeToString(sum[:]) != meta.SHA256 {
		return pipeline.Object{}, fmt.Errorf("object %s: %d bytes, said %d, or the sum is wrong", key, len(b), size)
	}
	lost := error(nil)
	if s.fail != nil {
		var err error
		if lost, err = s.fail(key); err != nil {
			return pipeline.Object{}, err
		}
	}
	if s.rand.Float64() < s.rate {
		if s.rand.IntN(2) == 0 {
			return pipeline.Object{}, errStore
		}
		lost = errStore
	}
	if have, ok := s.objects[key]; ok {
		if !bytes.Equal(have, b) {
			found := pipeline.Object{Key: key, Meta: s.meta[key]}
			return pipeline.Object{}, fmt.Errorf("put: %w", pipeline.ConflictError{Found: found})
		}
	} else {
		s.objects[key], s.meta[key] = b, meta
		s.order = append(s.order, key)
	}
	return pipeline.Object{Key: key, Size: size, Meta: meta}, lost
}

func (s *fakeStore) setFail(fail func(string) (stored, err error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// put keeps an object that is not the batcher's.
func (s *fakeStore) put(key string, meta pipeline.Meta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key], s.meta[key] = []byte("another object"), meta
}

func (s *fakeStore) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.order...)
}

// stored is all events of all objects, in the order of the PUTs; the metadata is checked.
func (s *fakeStore) stored() ([]pipeline.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []pipeline.Event
	before := map[string][]byte{}
	s.broken = map[uint64]error{}
	for _, key := range s.order {
		if pipeline.IsBlobKey(key) {
			before[key] = s.objects[key]
			continue
		}
		k, err := pipeline.ParseKey(key)
		if err != nil {
			return nil, err
		}
		b, meta := s.objects[key], s.meta[key]
		dec, err := codec.NewDecoder(bytes.NewReader(b), int64(len(b)), k.Format)
		if err != nil {
			return nil, err
		}
		events, err := dec.Decode(nil, codec.Limit{Rows: 1 << 30, Bytes: 1 << 40})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		// Parquet objects sort their rows; seq is the order of arrival.
		slices.SortFunc(events, func(a, b pipeline.Event) int { return cmp.Compare(a.Seq, b.Seq) })
		if meta.Rows != int64(len(events)) || meta.FirstSeq != events[0].Seq || string(events[0].Receiver) != k.Receiver {
			return nil, fmt.Errorf("%s: %d events from %d by %s, metadata %+v",
				key, len(events), events[0].Seq, events[0].Receiver, meta)
		}
		for _, e := range events {
			if e.ReceivedAt < meta.FirstReceived || e.ReceivedAt > meta.LastReceived {
				return nil, fmt.Errorf("%s: received_at %d, metadata %+v", key, e.ReceivedAt, meta)
			}
		}
		for _, e := range events {
			if err := broken(e, before); err != nil {
				s.broken[idOf(e)] = err
			}
		}
		all = append(all, events...)
	}
	return all, nil
}
