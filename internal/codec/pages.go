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

// parquet-go trusts a file's own sizes. A flipped bit in the footer or in a page header (no checksum covers them) can
// make it allocate until the process is killed, and recover does not help against that. So this file checks both before
// parquet-go reads them.

const (
	maxFooter     = 8 << 20 // bytes; 256 typed columns of long names take 75 KB a row group
	maxPageValues = 1 << 24
	maxZstdWindow = 32 << 20 // bytes; that of our encoder is 4 MiB
	maxPageHeader = 1 << 20  // bytes; it may hold statistics
	minPageHeader = 4 << 10
)

// maxNesting bounds a schema's depth. parquet-go descends by recursion, and recover does not help against a stack
// overflow.
const maxNesting = 100

// checkFooter rejects a footer whose counts exceed its content.
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
	// Decoding into an empty struct reads all items and keeps nothing.
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
	// parquet-go allocates some bytes for each column of each row group.
	if int64(len(shape.Schema))*int64(len(shape.RowGroups)) > n {
		return fmt.Errorf("a footer of %d bytes for %d columns in %d row groups", n, len(shape.Schema), len(shape.RowGroups))
	}
	var open []int32 // children still to come, for each group on the path
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

// maxOpen bounds the pages that a decoder may hold at once: one of each column and its dictionary. It counts
// decompressed bytes and valueBytes for each value. It also bounds the values that it copies from them at once. A row
// group of ours needs groupHeld, one event more (MaxEvent at most) and 75 MB of valueBytes; of earlier versions, 64 MiB
// in place of groupHeld.
const (
	maxOpen    = 64<<20 + partBytes + MaxEvent + 76<<20
	valueBytes = 8
)

// MaxEvent is the largest event that can be read back from an object, in bytes.
const MaxEvent = 256 << 20

// openPages is the memory that the open pages of each row group take at most, in bytes.
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

// checkColumn compares a column's page headers with the file's footer.
func checkColumn(f *parquet.File, r io.ReaderAt, size int64, c *parquet.Column, open *openPages) error {
	buf := make([]byte, minPageHeader)
	for g, group := range f.Metadata().RowGroups {
		chunk := &group.Columns[c.Index()].MetaData
		// parquet-go uses the codec of the first row group for all row groups.
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

// checkChunk returns the memory of the largest page and the dictionary, in bytes.
func checkChunk(r io.ReaderAt, size int64, c *parquet.Column, chunk *format.ColumnMetaData, rows int64,
	buf *[]byte) (open int64, err error) {
	switch chunk.Codec {
	case format.Uncompressed, format.Snappy, format.Gzip, format.Zstd:
	default:
		return 0, fmt.Errorf("compressed by %v: want zstd, gzip, snappy or none", chunk.Codec)
	}
	// parquet-go reads a type that it does not know as nulls without a kind. A column of nulls is stored like any other.
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

// logical returns a column's logical type, nil: none.
func logical(t parquet.Type) format.LogicalTypeValue {
	if l := t.LogicalType(); l != nil {
		return l.Value
	}
	return nil
}

// pageHeader reads the page header at an offset, and returns its length.
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

// plainDictionary is the older name of RLEDictionary. Other writers still use it.
const plainDictionary format.Encoding = 2

// checkPage checks a page whose body begins at an offset, and returns its number of values.
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
		// A dictionary stores each of its entries in full.
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

// width is the least size of a value that is stored in full, in bytes.
func width(t parquet.Type) int64 {
	switch t.Kind() {
	case parquet.FixedLenByteArray:
		return int64(max(t.Length(), 1))
	case parquet.Int64, parquet.Double:
		return 8
	case parquet.Int96:
		return 12
	}
	return 4 // the length of a byte array
}

// suits reports whether an encoding can hold a column of a kind. Delta byte arrays are refused: they may decode to any
// multiple of their size, and no version of ours wrote them.
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

// checkPacked compares the size that the compressed bytes name with the page's, because decompressing stops only there.
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

// checkStream decompresses a stream and discards the result, because a stream does not name its size.
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
