package receiver

import (
	"github.com/penstock/penstock/receiver/errcode"
)

// refusal and refuse are for files that name codes by their text still.
type refusal = errcode.Error

func refuse(_ int, code, format string, args ...any) *errcode.Error {
	c, _ := errcode.Named(code)
	return c.Errorf(format, args...)
}
