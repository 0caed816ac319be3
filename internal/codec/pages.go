package codec

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// parquet-go believes what a file says of itself: a flipped bit in the footer
// or in a page's header (which no checksum covers) can make it allocate until
// the process is killed, and no recover helps against that. So both are looked
// through here before parquet-go builds anything on them.

const (
	maxFooter     = 8 << 20 // bytes; 256 typed columns of long names take 75 KB a row group
	maxPageValues = 1 << 24
	maxZstdWindow = 32 << 20 // bytes; that of our encoder is 4 MiB
	maxPageHeader = 1 << 20  // bytes; it may hold statistics
	minPageHeader = 4 << 10
)

// maxNesting bounds a schema's depth: parquet-go goes down into it by
// recursion, and no recover helps against a stack that overflows.
const maxNesting = 100

// checkFooter refuses a footer that counts more than it holds.
func checkFooter(r io.ReaderAt, size int64) error {
	var tail [8]byte
	if size < int64(len(tail))+4 {
		return io.ErrUnexpectedEOF
	}
	if _, err := r.ReadAt(tail[:], size-8); err != nil && err != io.EOF {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(tail[:]))
	if string(tail[4:]) != "PAR1" || n > maxFooter || n > size-12 {
		return fmt.Errorf("a footer of %d bytes that ends in %q", n, tail[4:])
	}
	footer := make([]byte, n)
	if _, err := r.ReadAt(footer, size-8-n); err != nil && err != io.EOF {
		return err
	}
	read := func(into any) error {
		return thrift.NewDecoder(new(thrift.CompactProtocol).NewReaderFromBytes(footer)).Decode(into)
	}
	// A decoder that knows no field reads all of them, item by item, and keeps nothing.
	var nothing struct{}
	if err := read(&nothing); err != nil {
		return err
	}
	var shape struct {
		Schema []struct {
			Children thrift.Null[int32] `thrift:"5,optional"`
		} `thrift:"2,optional"`
		RowGroups []struct{} `thrift:"4,optional"`
	}
	if err := read(&shape); err != nil {
		return err
	}
	// parquet-go makes room for each column in each row group, and an entry takes some bytes.
	if int64(len(shape.Schema))*int64(len(shape.RowGroups)) > n {
		return fmt.Errorf("a footer of %d bytes for %d columns in %d row groups", n, len(shape.Schema), len(shape.RowGroups))
	}
	var open []int32 // children that are still to come, for each group on the way down
	for _, e := range shape.Schema {
		for len(open) > 0 && open[len(open)-1] <= 0 {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			open[len(open)-1]--
		}
		if e.Children.V > 0 {
			open = append(open, e.Children.V)
		}
		if len(open) > maxNesting {
			return fmt.Errorf("the schema is nested deeper than %d levels", maxNesting)
		}
	}
	return nil
}

// maxOpen bounds the pages that a decoder may hold at once, one of each column
// with its dictionary, in decompressed bytes with valueBytes for each value. It
// also bounds the values that it copies from them at once. A row group of ours
// takes groupBytes, one event beyond them (MaxEvent at most) and 75 MB of valueBytes.
const (
	maxOpen    = groupBytes + partBytes + MaxEvent + 76<<20
	valueBytes = 8
)

// MaxEvent is the largest event that can be read back from an object, in bytes.
const MaxEvent = 256 << 20

// openPages adds up what the open pages of each row group take at most.
type openPages []int64

func (o *openPages) add(group int, bytes int64) error {
	for len(*o) <= group {
		*o = append(*o, 0)
	}
	if (*o)[group] += bytes; (*o)[group] > maxOpen {
		return fmt.Errorf("its columns take more than %d bytes of memory at once", int64(maxOpen))
	}
	return nil
}

// checkColumn holds the page headers of a column against the file's footer.
func checkColumn(f *parquet.File, r io.ReaderAt, size int64, c *parquet.Column, open *openPages) error {
	buf := make([]byte, minPageHeader)
	for g, group := range f.Metadata().RowGroups {
		chunk := &group.Columns[c.Index()].MetaData
		// parquet-go goes by the codec of the first row group for all of them.
		if first := f.Metadata().RowGroups[0].Columns[c.Index()].MetaData.Codec; chunk.Codec != first {
			return fmt.Errorf("row group %d: compressed by %v, the first one by %v", g, chunk.Codec, first)
		}
		pages, err := checkChunk(r, size, c, chunk, group.NumRows, &buf)
		if err == nil {
			err = open.add(g, pages)
		}
		if err != nil {
			return fmt.Errorf("row group %d: %w", g, err)
		}
	}
	return nil
}

// checkChunk tells what its largest page takes in memory, with its dictionary.
func checkChunk(r io.ReaderAt, size int64, c *parquet.Column, chunk *format.ColumnMetaData, rows int64,
	buf *[]byte) (open int64, err error) {
	switch chunk.Codec {
	case format.Uncompressed, format.Snappy, format.Gzip, format.Zstd:
	default:
		return 0, fmt.Errorf("compressed by %v: want zstd, gzip, snappy or none", chunk.Codec)
	}
	// A type that parquet-go does not understand is one of nulls to it, without a kind; a column of nulls is stored as
	// any other.
	t := c.Type()
	if k := t.Kind(); k >= 0 && k != parquet.Kind(chunk.Type) || k < 0 && chunk.Type == format.FixedLenByteArray ||
		k == parquet.FixedLenByteArray && t.Length() <= 0 {
		return 0, fmt.Errorf("%s stored as %s is not supported", t, chunk.Type)
	}
	if d, ok := logical(t).(*format.DecimalType); ok && (d.Scale < 0 || d.Scale > 1000) {
		return 0, fmt.Errorf("%s is not supported", t)
	}
	at := chunk.DataPageOffset
	if d := chunk.DictionaryPageOffset; d != 0 {
		if d > at {
			return 0, errors.New("the dictionary is behind the data")
		}
		at = d
	}
	if at < 4 || chunk.TotalCompressedSize < 0 || at > size || chunk.TotalCompressedSize > size-at {
		return 0, errors.New("reaches beyond the file")
	}
	var values, dictionary, largest int64
	for end := at + chunk.TotalCompressedSize; at < end; {
		h, n, err := pageHeader(r, at, end, buf)
		if err != nil {
			return 0, fmt.Errorf("page at byte %d: %w", at, err)
		}
		at += n
		count, err := checkPage(r, at, end, h, c, chunk)
		if err != nil {
			return 0, fmt.Errorf("page at byte %d: %w", at-n, err)
		}
		at += int64(h.CompressedPageSize)
		if takes := int64(h.UncompressedPageSize) + valueBytes*count; h.Type == format.DictionaryPage {
			dictionary += takes
		} else {
			largest = max(largest, takes)
		}
		values += count
	}
	if values != chunk.NumValues || values < rows || values > rows && c.MaxRepetitionLevel() == 0 {
		return 0, fmt.Errorf("the pages have %d values, the footer counts %d in %d rows", values, chunk.NumValues, rows)
	}
	return dictionary + largest, nil
}

// logical is the logical type of a column, nil where it has none.
func logical(t parquet.Type) format.LogicalTypeValue {
	if l := t.LogicalType(); l != nil {
		return l.Value
	}
	return nil
}

// pageHeader reads the header at a byte, and tells its length.
func pageHeader(r io.ReaderAt, at, end int64, buf *[]byte) (*format.PageHeader, int64, error) {
	for {
		b := (*buf)[:min(int64(len(*buf)), end-at)]
		if _, err := r.ReadAt(b, at); err != nil && err != io.EOF {
			return nil, 0, err
		}
		h := new(format.PageHeader)
		in := new(thrift.CompactProtocol).NewReaderFromBytes(b)
		err := thrift.NewDecoder(in).Decode(h)
		if err == nil {
			return h, int64(in.BytesRead()), nil
		}
		if len(b) < len(*buf) || len(b) >= maxPageHeader {
			return nil, 0, err
		}
		*buf = make([]byte, maxPageHeader)
	}
}

// plainDictionary is the older name of RLEDictionary, which other writers still use.
const plainDictionary format.Encoding = 2

// checkPage checks a page whose body begins at a byte, and tells how many values it has.
func checkPage(r io.ReaderAt, at, end int64, h *format.PageHeader, c *parquet.Column,
	chunk *format.ColumnMetaData) (values int64, err error) {
	kind := c.Type().Kind()
	packed, full := int64(h.CompressedPageSize), int64(h.UncompressedPageSize)
	var encoding format.Encoding
	var levels int64 // bytes before the compressed part
	compressed := chunk.Codec != format.Uncompressed
	switch {
	case h.Type == format.DictionaryPage && h.DictionaryPageHeader.Valid:
		d := h.DictionaryPageHeader.V
		// A dictionary has each of its entries in full.
		if encoding, values = d.Encoding, int64(d.NumValues); values > full/width(c.Type()) || encoding != format.Plain &&
			encoding != plainDictionary {
			return 0, fmt.Errorf("a dictionary of %d entries in %d bytes, encoded as %v", values, full, encoding)
		}
	case h.Type == format.DataPage && h.DataPageHeader.Valid:
		encoding, values = h.DataPageHeader.V.Encoding, int64(h.DataPageHeader.V.NumValues)
	case h.Type == format.DataPageV2 && h.DataPageHeaderV2.Valid:
		d := h.DataPageHeaderV2.V
		encoding, values = d.Encoding, int64(d.NumValues)
		levels = int64(d.DefinitionLevelsByteLength) + int64(d.RepetitionLevelsByteLength)
		if d.IsCompressed.Valid && !d.IsCompressed.V {
			compressed = false
		}
		if d.NumRows > d.NumValues || d.NumRows < d.NumValues && c.MaxRepetitionLevel() == 0 || d.NumNulls < 0 ||
			d.NumNulls > d.NumValues ||
			d.DefinitionLevelsByteLength < 0 || d.RepetitionLevelsByteLength < 0 {
			return 0, fmt.Errorf("%d values, %d of them null, in %d rows", d.NumValues, d.NumNulls, d.NumRows)
		}
	default:
		return 0, fmt.Errorf("of type %v", h.Type)
	}
	if packed < 0 || packed > end-at || full < 0 || full > maxOpen || levels > min(packed, full) || values < 0 ||
		values > maxPageValues {
		return 0, fmt.Errorf("%d bytes, decompressed %d, %d of levels, %d values: beyond the limits", packed, full, levels,
			values)
	}
	if !suits(encoding, kind) {
		return 0, fmt.Errorf("encoded as %v", encoding)
	}
	if !compressed && packed != full {
		return 0, fmt.Errorf("not compressed, but %d bytes become %d", packed, full)
	}
	if compressed && packed > levels {
		if err := checkPacked(r, chunk.Codec, at+levels, packed-levels, full-levels); err != nil {
			return 0, err
		}
	}
	if h.Type == format.DictionaryPage {
		values = 0
	}
	return values, nil
}

// width is how many bytes a value takes at least, in full.
func width(t parquet.Type) int64 {
	switch t.Kind() {
	case parquet.FixedLenByteArray:
		return int64(max(t.Length(), 1))
	case parquet.Int64, parquet.Double:
		return 8
	case parquet.Int96:
		return 12
	}
	return 4 // the length of a byte array, too
}

// suits tells the encodings that can hold a column of a kind. Delta byte arrays,
// which no version of ours wrote, may become any number of times their size.
func suits(e format.Encoding, k parquet.Kind) bool {
	switch e {
	case format.Plain:
		return true
	case plainDictionary, format.RLEDictionary:
		return k != parquet.Boolean
	case format.RLE:
		return k == parquet.Boolean
	case format.ByteStreamSplit:
		return k == parquet.Float || k == parquet.Double
	case format.DeltaBinaryPacked:
		return k == parquet.Int32 || k == parquet.Int64
	case format.DeltaLengthByteArray:
		return k == parquet.ByteArray
	}
	return false
}

// checkPacked holds what the compressed bytes say of their own size against the page's, for that is where decompressing
// ends.
func checkPacked(r io.ReaderAt, codec format.CompressionCodec, at, packed, full int64) error {
	b := make([]byte, min(packed, zstd.HeaderMaxSize))
	if _, err := r.ReadAt(b, at); err != nil && err != io.EOF {
		return err
	}
	switch codec {
	case format.Zstd:
		var h zstd.Header
		if err := h.Decode(b); err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		if h.Skippable || h.HasFCS && h.FrameContentSize != uint64(full) {
			return fmt.Errorf("zstd: a frame of %d bytes, want %d", h.FrameContentSize, full)
		}
		if !h.HasFCS {
			z, err := newZstd(io.NewSectionReader(r, at, packed))
			if err != nil {
				return err
			}
			defer z.Close()
			return checkStream("zstd", z, full)
		}
	case format.Snappy:
		if n, _ := binary.Uvarint(b); n != uint64(full) {
			return fmt.Errorf("snappy: a block of %d bytes, want %d", n, full)
		}
	case format.Gzip:
		z, err := gzip.NewReader(io.NewSectionReader(r, at, packed))
		if err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		return checkStream("gzip", z, full)
	}
	return nil
}

// checkStream decompresses a stream to nowhere, for it does not say beforehand how large it is.
func checkStream(name string, z io.Reader, full int64) error {
	n, err := io.Copy(io.Discard, io.LimitReader(z, full+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if n != full {
		return fmt.Errorf("%s: a stream that is not of %d bytes", name, full)
	}
	return nil
}
