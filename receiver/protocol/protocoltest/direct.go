package protocoltest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Host replaces the receiver in a protocol's tests. Its zero value rejects nothing.
type Host struct {
	Limit   int64 // of Charged; 0: none
	Keys    []string
	Charged int64 // current
	Peak    int64 // highest Charged
}

// Charge counts, up to the limit.
func (h *Host) Charge(n int64) *errcode.Error {
	if h.Limit > 0 && h.Charged+n > h.Limit {
		return errcode.Busy.Errorf("%d bytes of memory, the limit is %d", h.Charged+n, h.Limit)
	}
	h.Charged += n
	h.Peak = max(h.Peak, h.Charged)
	return nil
}

// Unzip decompresses.
func (h *Host) Unzip(data []byte, limit int64) ([]byte, *errcode.Error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, errcode.InvalidEncoding.Errorf("gzip: %s", err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, limit+1))
	switch {
	case err != nil:
		return nil, errcode.InvalidEncoding.Errorf("gzip: %s", err)
	case int64(len(plain)) > limit:
		return nil, errcode.DecodedTooLarge.Errorf("more than %d bytes", limit)
	}
	return plain, nil
}

// IsKey knows Keys.
func (h *Host) IsKey(text []byte) bool { return slices.Contains(h.Keys, string(text)) }

// Request returns a request for a protocol without a receiver.
func (h *Host) Request() *protocol.Request {
	return &protocol.Request{Host: h, Header: http.Header{}, MaxEvent: 1 << 20, MaxDepth: 32, MaxBody: 8 << 20}
}

// Given is one event that a protocol passed to a Sink.
type Given struct {
	Text, Name, User, Session string
	Err                       error // the draft's
	Raw, ContentType          string
	Repaired                  bool
}

// Sink records what a protocol passes to it.
type Sink struct {
	Request *protocol.Request
	Most    int // most events; 0: any number

	Given      []Given
	What, SDK  string // from Single and Library
	Lines      bool
	next       int
	underJudge Given
}

// Values records each value.
func (s *Sink) Values(m protocol.Mapper, text []byte, lines bool) *errcode.Error {
	s.Lines = lines
	for values := jsonscan.NewValues(text, lines); ; {
		value, err := values.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		n := jsonscan.Extent(value)
		if err != nil || n == 0 {
			return errcode.InvalidJSON.Errorf("at %.20q: %v", value, err)
		}
		s.Given = append(s.Given, s.mapped(m, value[:values.Take(n)]))
	}
}

// Single records the only event.
func (s *Sink) Single(m protocol.Mapper, text []byte, what string) *errcode.Error {
	s.What = what
	s.Given = append(s.Given, s.mapped(m, text))
	return nil
}

// Library records the name of the client's library.
func (s *Sink) Library(name, version []byte) { s.SDK = string(name) + "/" + string(version) }

// Next counts records.
func (s *Sink) Next() (index int, err *errcode.Error) {
	if s.Most > 0 && s.next == s.Most {
		return 0, errcode.TooManyEvents.Errorf("more than %d", s.Most)
	}
	s.next++
	return s.next - 1, nil
}

// Record rejects a record if its draft has an error.
func (s *Sink) Record(m protocol.Mapper, text []byte) protocol.Verdict {
	s.underJudge = s.mapped(m, text)
	return protocol.Verdict{Err: s.underJudge.Err, Reported: s.underJudge.Err != nil}
}

// Done records a record.
func (s *Sink) Done(v protocol.Verdict, raw []byte, contentType string) *errcode.Error {
	g := s.underJudge
	g.Err, g.Raw, g.ContentType, g.Repaired = v.Err, string(raw), contentType, v.Repaired
	s.Given, s.underJudge = append(s.Given, g), Given{}
	return nil
}

func (s *Sink) mapped(m protocol.Mapper, text []byte) Given {
	scan := jsonscan.Scanner{MaxDepth: 100, AllowLoneSurrogates: true}
	members, _, err := scan.Object(text)
	if err != nil {
		return Given{Text: string(text), Err: err}
	}
	var d protocol.Draft
	d.Reset(s.Request)
	m.Map(&d, members)
	return Given{Text: string(text), Name: string(d.Name), User: string(d.User), Session: string(d.Session), Err: d.Err}
}
