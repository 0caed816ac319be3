package loader

import (
	"context"
	"fmt"

	"github.com/penstock/penstock/internal/pipeline"
)

// outside lists the loadable objects of a pipeline but for those that within
// accepts. It lists the whole prefix, a request for every 1000 keys: files may
// lie in folders of any name, which sort between those of the days. page gets the
// rest of each page of the listing, which may be empty, how many files there are no data, and the last key of the
// page: an interrupted listing continues after that key.
func outside(ctx context.Context, lister Lister, spec pipeline.Spec, within func(pipeline.Object) bool, cursor string,
	page func(objects []pipeline.Object, ignored int, last string) error) error {
	err := lister.List(ctx, spec.Prefix, cursor, "", func(all []pipeline.Object) error {
		var some []pipeline.Object
		ignored := 0
		for _, o := range all {
			switch {
			case within(o):
			case pipeline.IsData(spec.Prefix, o.Key):
				some = append(some, o)
			default:
				ignored++
			}
		}
		return page(some, ignored, all[len(all)-1].Key)
	})
	if err != nil {
		return fmt.Errorf("list objects of %s: %w", spec.Name, err)
	}
	return nil
}
