package codec

import (
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
	maxFooter     = 2 << 20   // bytes
	maxPageBytes  = 512 << 20 // decompressed
	maxPageValues = 1 << 24
	maxPageHeader = 1 << 20 // bytes; it may hold statistics
	minPageHeader = 4 << 10
)

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
	// A decoder that knows no field reads all of them, item by item, and keeps nothing.
	var nothing struct{}
	return thrift.NewDecoder(new(thrift.CompactProtocol).NewReaderFromBytes(footer)).Decode(&nothing)
}

// checkColumn holds the page headers of a column against the file's footer.
func checkColumn(f *parquet.File, r io.ReaderAt, size int64, index int) error {
	buf := make([]byte, minPageHeader)
	for g, group := range f.Metadata().RowGroups {
		if err := checkChunk(r, size, &group.Columns[index].MetaData, group.NumRows, &buf); err != nil {
			return fmt.Errorf("row group %d: %w", g, err)
		}
	}
	return nil
}

func checkChunk(r io.ReaderAt, size int64, chunk *format.ColumnMetaData, rows int64, buf *[]byte) error {
	switch chunk.Codec {
	case format.Uncompressed, format.Snappy, format.Zstd:
	default:
		return fmt.Errorf("compressed by %v: want zstd, snappy or none", chunk.Codec)
	}
	at := chunk.DataPageOffset
	if d := chunk.DictionaryPageOffset; d != 0 {
		if d > at {
			return errors.New("the dictionary is behind the data")
		}
		at = d
	}
	if at < 4 || chunk.TotalCompressedSize < 0 || at > size || chunk.TotalCompressedSize > size-at {
		return errors.New("reaches beyond the file")
	}
	var values int64
	for end := at + chunk.TotalCompressedSize; at < end; {
		h, n, err := pageHeader(r, at, end, buf)
		if err != nil {
			return fmt.Errorf("page at byte %d: %w", at, err)
		}
		at += n
		count, err := checkPage(r, at, end, h, chunk)
		if err != nil {
			return fmt.Errorf("page at byte %d: %w", at-n, err)
		}
		at += int64(h.CompressedPageSize)
		values += count
	}
	if values != rows || values != chunk.NumValues {
		return fmt.Errorf("the pages have %d values, the footer counts %d in %d rows", values, chunk.NumValues, rows)
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
func checkPage(r io.ReaderAt, at, end int64, h *format.PageHeader, chunk *format.ColumnMetaData) (values int64, err error) {
	packed, full := int64(h.CompressedPageSize), int64(h.UncompressedPageSize)
	var encoding format.Encoding
	var levels int64 // bytes before the compressed part
	compressed := chunk.Codec != format.Uncompressed
	switch {
	case h.Type == format.DictionaryPage && h.DictionaryPageHeader.Valid:
		d := h.DictionaryPageHeader.V
		// A dictionary has each of its entries in full, in four bytes at least.
		if encoding, values = d.Encoding, int64(d.NumValues); values > full/4 || encoding != format.Plain && encoding != plainDictionary {
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
		if d.NumRows != d.NumValues || d.DefinitionLevelsByteLength < 0 || d.RepetitionLevelsByteLength < 0 {
			return 0, fmt.Errorf("%d values in %d rows", d.NumValues, d.NumRows)
		}
	default:
		return 0, fmt.Errorf("of type %v", h.Type)
	}
	if packed < 0 || packed > end-at || full < 0 || full > maxPageBytes || levels > min(packed, full) || values < 0 || values > maxPageValues {
		return 0, fmt.Errorf("%d bytes, decompressed %d, %d of levels, %d values: beyond the limits", packed, full, levels, values)
	}
	if !suits(encoding, chunk.Type) {
		return 0, fmt.Errorf("encoded as %v", encoding)
	}
	if !compressed && packed != full {
		return 0, fmt.Errorf("not compressed, but %d bytes become %d", packed, full)
	}
	if compressed && chunk.Codec == format.Zstd && packed > levels {
		if err := checkFrame(r, at+levels, packed-levels, full-levels); err != nil {
			return 0, err
		}
	}
	if h.Type == format.DictionaryPage {
		values = 0
	}
	return values, nil
}

// suits tells the encodings that can hold a column of a type.
func suits(e format.Encoding, t format.Type) bool {
	switch e {
	case format.Plain, plainDictionary, format.RLEDictionary:
		return true
	case format.DeltaBinaryPacked:
		return t == format.Int32 || t == format.Int64
	case format.DeltaLengthByteArray:
		return t == format.ByteArray
	case format.DeltaByteArray:
		return t == format.ByteArray || t == format.FixedLenByteArray
	}
	return false
}

// checkFrame holds a zstd frame's own size against the page's; the decoder ends at the frame's.
func checkFrame(r io.ReaderAt, at, packed, full int64) error {
	var h zstd.Header
	b := make([]byte, min(packed, zstd.HeaderMaxSize))
	if _, err := r.ReadAt(b, at); err != nil && err != io.EOF {
		return err
	}
	if err := h.Decode(b); err != nil {
		return fmt.Errorf("zstd: %w", err)
	}
	if h.Skippable || h.HasFCS && h.FrameContentSize != uint64(full) {
		return fmt.Errorf("zstd: a frame of %d bytes, want %d", h.FrameContentSize, full)
	}
	return nil
}
