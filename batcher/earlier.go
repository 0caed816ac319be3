package batcher

import (
	"context"
	"errors"
	"os"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pipeline"
)

// earlierSuffix ends the name of a blob file of the first version of the batcher. Such a file is next to its segment,
// and is an object as it is. Its records have the references. Records of a failed write are in a later segment.
const earlierSuffix = ".wal" + blobSuffix

// earlierBlobs is such a file.
type earlierBlobs struct {
	path, key string
	size      int64         // at the start of the process, which never writes such files
	alone     bool          // its segment has no records: only later ones refer to it
	putting   chan struct{} // holds the uploader that puts it
	put       bool
}

func openEarlier(fs wal.FS, path string, segment wal.Recovered, key pipeline.Key) (*earlierBlobs, error) {
	e := &earlierBlobs{path: path, key: pipeline.BlobKey(key), alone: segment.Empty(), putting: make(chan struct{}, 1)}
	var err error
	e.size, err = fileSize(fs, path)
	return e, err
}

// putEarlier uploads the files of the batch and of those before it, each once. If a file cannot be read, only the batch
// of its own segment waits, if that has records. Most likely no other batch refers to it.
func (b *Batcher) putEarlier(ctx context.Context, bt *batch) error {
	for _, e := range bt.earlier {
		if err := e.store(ctx, b); err != nil && (e == bt.own || e.alone || !errors.Is(err, errBlobs)) {
			return err
		}
	}
	return nil
}

func (e *earlierBlobs) store(ctx context.Context, b *Batcher) error {
	e.putting <- struct{}{}
	defer func() { <-e.putting }()
	if e.put {
		return nil
	}
	file, err := b.fs.OpenFile(e.path, os.O_RDONLY)
	if err != nil {
		return errors.Join(errBlobs, err)
	}
	defer file.Close()
	if e.size > 0 {
		sum, err := sumOf(file, e.size)
		if err != nil {
			return err
		}
		err = b.putBytes(ctx, e.key, file, e.size, sum)
		// It was uploaded before a power loss that damaged the file: the object is whole.
		if c, ok := errors.AsType[pipeline.ConflictError](err); err != nil && (!ok || c.Found.Meta.SHA256 == "") {
			return err
		}
	}
	e.put = true
	return nil
}
