package console

import (
	"context"
	"errors"
	"strings"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/retry"
)

// failure is why a part cannot be shown, in words.
type failure struct {
	Title, Text, Next string
	Away              bool // it may pass: the page tries again
}

func (f failure) Error() string { return f.Title + " " + f.Next }

// explain says what failed, and what to do.
func (c *Console) explain(err error) failure {
	if f, ok := errors.AsType[failure](err); ok {
		return f
	}
	err = c.operator.Explain(err)
	f := failure{Title: "This cannot be shown.", Text: err.Error(), Next: "Correct what the message names."}
	wrong, ok := errors.AsType[*config.FieldError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		f.Title, f.Away = "This takes too long.", true
		f.Next = "Choose a shorter time range. The page Now shows what does not answer."
	case ok:
		f = failure{wrong.Field + " does not work.", wrong.Err.Error(), sentence(wrong.Do), true}
		if p := partyOf(wrong.Field); p.field != "" {
			f.Title = p.title
			f.Next += " " + p.meanwhile
		}
	case retry.ClassOf(err) == retry.Outage:
		f.Title, f.Away = "A server does not answer.", true
		f.Next = "The page Now names it."
	}
	return f
}

// party is a server that pages need.
type party struct {
	field     string // beginning of its fields in the configuration
	title     string
	meanwhile string // what happens until it is back
}

// partyOf returns the server that a field of the configuration, or an error that begins with one, is about.
func partyOf(text string) party {
	for _, p := range []party{
		{"clickhouse.", "ClickHouse cannot be used.",
			"Receivers go on. Their objects wait in the bucket, and are loaded when ClickHouse is back."},
		{"storage.", "The bucket cannot be used.",
			"Receivers go on. Their batches wait on disk, and are stored when the bucket is back."},
		{"queue.", "The queue cannot be used.",
			"Receivers go on. When the queue is back, loaders sweep the bucket for what they missed."},
	} {
		if strings.HasPrefix(text, p.field) {
			return p
		}
	}
	return party{}
}

// sentence begins with a capital letter, and ends with a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + strings.TrimSuffix(text[1:], ".") + "."
}
