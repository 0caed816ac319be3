package receiver

import (
	"fmt"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/tenant"
)

// Aliases for the callers of New that name these types here still.
type (
	Key     = tenant.Key
	Project = tenant.Project
	Rate    = tenant.Rate
	Quota   = tenant.Quota
	Sample  = tenant.Sample
	Usage   = tenant.Usage
	Used    = tenant.Used
)

const (
	SampleSession = tenant.BySession
	SampleUser    = tenant.ByUser
	SampleEvent   = tenant.ByEvent
)

// HashKey is tenant.HashKey.
func HashKey(key string) [32]byte { return tenant.HashKey(key) }

// refusal, refuse and wrong are for files that name codes by their text still.
type refusal = errcode.Error

func refuse(_ int, code, format string, args ...any) *errcode.Error {
	c, _ := errcode.Named(code)
	return &errcode.Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

func wrong(code, format string, args ...any) error { return refuse(0, code, format, args...) }
