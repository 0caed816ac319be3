package loader

import (
	"errors"
	"fmt"

	"github.com/penstock/penstock/internal/retry"
)

// codeKilledLoader is the code of an object that was loaded alone and killed that process too.
const codeKilledLoader = "killed_loader"

// codedError is a failure with an error code.
type codedError struct {
	code  string
	final bool // a retry cannot succeed: give the object up at once
	error
}

func (e codedError) Unwrap() error { return e.error }

// fault is an object's own failure.
func fault(code, format string, args ...any) error {
	return codedError{code: code, error: retry.As(retry.Permanent, fmt.Errorf(format, args...))}
}

// faultFinal is a fault that no retry can change.
func faultFinal(code, format string, args ...any) error {
	return codedError{code: code, final: true, error: retry.As(retry.Permanent, fmt.Errorf(format, args...))}
}

// isFinal reports whether to give an object up at once.
func isFinal(err error) bool {
	c, ok := errors.AsType[codedError](err)
	return ok && c.final
}

// codeOf returns a failure's error code.
func codeOf(err error) string {
	if c, ok := errors.AsType[codedError](err); ok {
		return c.code
	}
	switch {
	case retry.ClassOf(err) == retry.Outage:
		return "outage"
	case retry.CodeOf(err) != 0:
		return "insert_refused"
	}
	return "load_failed"
}
