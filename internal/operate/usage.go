package operate

import (
	"errors"
	"fmt"
)

// UsageError reports invalid arguments: exit status 2 of a command, status 400 of the API.
type UsageError struct{ err error }

func (e *UsageError) Error() string { return e.err.Error() }
func (e *UsageError) Unwrap() error { return e.err }

// Usagef returns a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// usage turns an error into a UsageError; nil stays nil.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &UsageError{err}
}

func isUsage(err error) bool {
	_, ok := errors.AsType[*UsageError](err)
	return ok
}
