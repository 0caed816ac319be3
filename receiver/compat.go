package receiver

import (
	"fmt"

	"github.com/penstock/penstock/receiver/errcode"
)

// refusal, refuse and wrong are for files that name codes by their text still.
type refusal = errcode.Error

func refuse(_ int, code, format string, args ...any) *errcode.Error {
	c, _ := errcode.Named(code)
	return &errcode.Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

func wrong(code, format string, args ...any) error { return refuse(0, code, format, args...) }
