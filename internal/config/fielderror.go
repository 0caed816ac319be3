package config

import (
	"errors"
	"fmt"
	"strconv"
)

// FieldError is a value that a role or a command finds to be wrong: a server that rejects it, a port in use. Return it
// as it is or by errors.Join; its source is lost if it is formatted into another error.
type FieldError struct {
	Field string // as storage.bucket
	Value string // empty: it is a secret
	Err   error  // what is wrong
	Do    string // what to do

	place string // see Sources.Explain
}

func (e *FieldError) Error() string {
	text := e.Field
	if e.Value != "" {
		text += " " + strconv.Quote(e.Value)
	}
	if e.place != "" {
		text += " (from " + e.place + ")"
	}
	return fmt.Sprintf("%s: %v; %s", text, e.Err, e.Do)
}

func (e *FieldError) Unwrap() error { return e.Err }

// Explain adds the source of the value to each FieldError in err. It returns err.
func (s Sources) Explain(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			s.Explain(one)
		}
	} else if e, ok := errors.AsType[*FieldError](err); ok && s != nil {
		if e.place = s.Of(e.Field); e.place == "" {
			e.place = "the defaults"
		}
	}
	return err
}
