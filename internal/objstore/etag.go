package objstore

import (
	"context"
	"sync/atomic"

	"github.com/penstock/penstock/internal/pipeline"
)

// etags knows whether the store's answers to PUT can be trusted. Some gateways answer a PUT with another ETag than the
// object then has, and a loader that gets the first would report that somebody has overwritten the object.
type etags struct{ trusted atomic.Bool }

// settle returns the ETag of an object that was just put. It asks for the object until both answers were equal once.
func (e *etags) settle(ctx context.Context, put pipeline.Object,
	head func(context.Context, string) (pipeline.Object, error)) string {
	if e.trusted.Load() {
		return put.ETag
	}
	found, err := head(ctx, put.Key)
	if err != nil || found.Meta.SHA256 != put.Meta.SHA256 {
		return put.ETag // there is nothing better, and the object is stored
	}
	if found.ETag == put.ETag {
		e.trusted.Store(true)
	}
	return found.ETag
}
