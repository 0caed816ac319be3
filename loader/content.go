package loader

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Files decodes columnar files that Penstock did not write into lines of JSON, in the file's order. A file gives the
// same lines as long as Version is the same.
type Files interface {
	Version(ctx context.Context) (string, error)
	Lines(ctx context.Context, key, format string, each func(line []byte) error) error
}

// Source reads objects from the bucket, including those that Penstock did not write.
type Source struct {
	Store   Store
	Files   Files
	Imports foreign.Mappings
	Dir     string // for temporary copies of objects; empty: the system's temporary folder
	MaxRow  int    // longest row of a file as JSON, in bytes; 0: foreign.DefaultMaxRow
}

// content is a whole and checked object on disk.
type content struct {
	object  pipeline.Object
	file    *os.File // already deleted, so it has no name
	foreign bool
	format  foreign.Format // if it is foreign
	of      foreign.File   // if it is foreign
	opts    foreign.Options
	reading string // see pipeline.Load
}

func (c *content) Close() { c.file.Close() }

// decoder returns a decoder at the object's first event.
func (c *content) decoder() (codec.Decoder, error) {
	var dec codec.Decoder
	var err error
	if c.foreign {
		dec, err = foreign.NewDecoder(c.of, c.format, c.opts)
	} else if format, ok := pipeline.FormatOf(c.object.Key); ok {
		dec, err = codec.NewDecoder(c.file, c.object.Size, format)
	} else {
		return nil, faultFinal("unknown_format",
			"its metadata is Penstock's, and its name ends in none of Penstock's formats")
	}
	if err != nil {
		return nil, fileFault(err)
	}
	return dec, nil
}

// sample returns some of the object's events.
func (c *content) sample(limit codec.Limit) ([]pipeline.Event, error) {
	if format, ok := pipeline.FormatOf(c.object.Key); ok && !c.foreign {
		return codec.Sample(c.file, c.object.Size, format, limit)
	}
	dec, err := c.decoder()
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.Decode(nil, limit)
}

// fetch copies the object to the disk, and decodes nothing. After an error, the content has only what is known about
// the object.
//
// Bytes may be damaged on their way, so an object with a wrong sha256 is read twice. If the same bytes come again, the
// store has them so, and no further attempt can help.
func (s *Source) fetch(ctx context.Context, n pipeline.Notification) (*content, error) {
	c, sum, err := s.store(ctx, n)
	if c.damagedBy(sum) {
		first := sum
		c.file.Close()
		if c, sum, err = s.store(ctx, n); c.damagedBy(sum) {
			c.file.Close()
			damage := codedError{code: "object_damaged", final: sum == first, error: retry.As(retry.Permanent, fmt.Errorf(
				"its sha256 is %s, its metadata says %s: it is damaged", sum, c.object.Meta.SHA256))}
			c.file, err = nil, damage
		}
	}
	if err != nil {
		err = fmt.Errorf("fetch %s: %w", n.Key, err)
	}
	return c, err
}

// store copies the object to a file, and returns the sha256 of its bytes; empty after an error.
func (s *Source) store(ctx context.Context, n pipeline.Notification) (*content, string, error) {
	object, body, err := s.Store.Get(ctx, n.Key)
	c := &content{object: object, foreign: object.Meta.SHA256 == ""}
	if err != nil {
		return c, "", metaFault(err)
	}
	defer body.Close()
	if schema := object.Meta.Schema; !c.foreign && (schema < 1 || schema > pipeline.SchemaVersion) {
		return c, "", faultFinal("unsupported_schema", "its metadata says schema %d, and this version reads 1 to %d: "+
			"update the loaders, then redrive it", schema, pipeline.SchemaVersion)
	}
	file, err := s.temporary()
	if err != nil {
		return c, "", err
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), body)
	if err == nil && size != object.Size {
		err = fmt.Errorf("%d bytes came of %d", size, object.Size)
	}
	if err != nil {
		file.Close()
		return c, "", retry.As(retry.Outage, err) // a cut connection or a full disk says nothing about the object
	}
	c.file = file
	return c, hex.EncodeToString(sum.Sum(nil)), nil
}

// damagedBy reports whether the object should have another sha256. The notification's ETag does not matter: it may
// arrive after the object was replaced by a corrected one.
func (c *content) damagedBy(sum string) bool {
	return c.file != nil && !c.foreign && sum != c.object.Meta.SHA256
}

// stranger reports whether the content lacks the metadata that an object with its key has. A proxy may have answered
// with a page of its own.
func (c *content) stranger() bool {
	_, err := pipeline.ParseKey(c.object.Key)
	return c.foreign && c.file != nil && err == nil
}

// temporary creates a file and deletes its name.
func (s *Source) temporary() (*os.File, error) {
	file, err := os.CreateTemp(s.Dir, "load-*.tmp")
	if err != nil {
		return nil, retry.As(retry.Outage, err)
	}
	os.Remove(file.Name())
	return file, nil
}

// prepare detects the format of a foreign file, and lets ClickHouse decode it if
// package foreign does not.
func (s *Source) prepare(ctx context.Context, c *content) error {
	c.reading = pipeline.PartitionUnit
	if !c.foreign {
		return nil
	}
	c.of = foreign.File{Data: c.file, Size: c.object.Size, Key: c.object.Key, Encoding: c.object.Encoding}
	mapping := s.Imports.Of(c.object.Key)
	c.opts = foreign.Options{Key: c.object.Key, Modified: c.object.Modified.UnixMilli(), Mapping: mapping,
		MaxRow: s.MaxRow}
	var err error
	if c.format, err = foreign.Detect(c.of); err != nil {
		return fileFault(err)
	}
	// 2 is the version of package foreign, which decides where rows begin. The file's time of storage is its rows'
	// received_at.
	c.reading += fmt.Sprintf(" 2 %d", c.opts.Modified)
	if mapping != nil {
		sum := sha256.Sum256(fmt.Appendf(nil, "%#v", *mapping))
		c.reading += " " + hex.EncodeToString(sum[:8])
	}
	if !c.format.ByServer() || foreign.IsOwn(c.of, c.format) {
		return nil
	}
	if s.Files == nil {
		return fault("unreadable_object", "%s is decoded by ClickHouse, which this command does not ask", c.format)
	}
	version, err := s.Files.Version(ctx)
	if err != nil {
		return err
	}
	c.reading += " " + version
	return s.decode(ctx, c)
}

// decode replaces the file by the JSON lines that ClickHouse makes of it. So every later step reads the same rows. The
// file may change meanwhile; that is checked after the last line.
func (s *Source) decode(ctx context.Context, c *content) error {
	spool, err := s.temporary()
	if err != nil {
		return err
	}
	size, text, err := s.lines(ctx, c, spool)
	if err = fileFault(err); err == nil || isFinal(err) {
		err = cmp.Or(s.overwritten(ctx, c), err)
	}
	if err != nil {
		spool.Close()
		return err
	}
	c.file.Close()
	c.file, c.format = spool, foreign.JSON
	c.of = foreign.File{Data: spool, Size: size, Key: c.object.Key, Text: text}
	return nil
}

// overwritten returns an error if the object in the store is not the one that was fetched. The server may have read
// parts of both, so neither its lines nor its errors count.
func (s *Source) overwritten(ctx context.Context, c *content) error {
	now, body, err := s.Store.Get(ctx, c.object.Key)
	if err != nil {
		return metaFault(err)
	}
	body.Close()
	if now.ETag != c.object.ETag {
		return fault("object_overwritten", "its ETag was %s, and %s when it was decoded: it was overwritten", c.object.ETag,
			now.ETag)
	}
	return nil
}

// lines writes the lines into spool: text bytes, compressed to size bytes.
func (s *Source) lines(ctx context.Context, c *content, spool *os.File) (size, text int64, err error) {
	z, err := zstd.NewWriter(spool, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, 0, err
	}
	out := bufio.NewWriterSize(z, 256<<10)
	err = s.Files.Lines(ctx, c.object.Key, c.format.String(), func(line []byte) error {
		if text += int64(len(line)) + 1; text > foreign.MaxText {
			return faultFinal("unreadable_object", "it is more than %d bytes of text; split it", int64(foreign.MaxText))
		}
		if _, err := out.Write(line); err != nil {
			return retry.As(retry.Outage, err)
		}
		if err := out.WriteByte('\n'); err != nil {
			return retry.As(retry.Outage, err)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(out.Flush(), z.Close()); err != nil {
		return 0, 0, retry.As(retry.Outage, err)
	}
	if size, err = spool.Seek(0, io.SeekCurrent); err != nil {
		return 0, 0, retry.As(retry.Outage, err)
	}
	if text == 0 {
		size = 0 // no rows
	}
	return size, text, nil
}

// metaFault turns broken metadata into a failure of its object.
func metaFault(err error) error {
	if f, ok := errors.AsType[*pipeline.FileError](err); ok {
		return codedError{code: f.Code, final: f.Final, error: retry.As(retry.Permanent, err)}
	}
	return err
}

// fileFault turns an error of decoding into a failure of its object. The whole file is on disk, so decoding it again
// cannot help, unless the disk fails.
func fileFault(err error) error {
	if _, ok := errors.AsType[*pipeline.FileError](err); ok {
		return metaFault(err)
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return retry.As(retry.Outage, err)
	}
	if err != nil && !errors.Is(err, context.Canceled) && retry.ClassOf(err) == retry.Unknown {
		return faultFinal("unreadable_object", "%w", err)
	}
	return err
}
