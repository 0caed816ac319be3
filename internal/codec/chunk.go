package codec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// form is how a column's values are held, and stored where they are in no dictionary.
type form uint8

const (
	formInt      form = iota // DELTA_BINARY_PACKED
	formUint                 // the same; its bounds are those of numbers without a sign
	formFloat                // PLAIN
	formBool                 // PLAIN
	formText                 // DELTA_LENGTH_BYTE_ARRAY
	formDocument             // PLAIN
	formID                   // PLAIN, 16 bytes
)

func (f form) physical() format.Type {
	return [...]format.Type{format.Int64, format.Int64, format.Double, format.Boolean, format.ByteArray, format.ByteArray,
		format.FixedLenByteArray}[f]
}

// chunk is one column of the row group that is being written: its values until
// they fill a page, and its pages until the row group is full.
//
// parquet-go writes columns from its own Values, of 24 bytes, which it sorts out
// again; that took a third of what receiving an event costs. Here a value goes to
// where its page begins. The encodings and the structures of a file are
// parquet-go's.
type chunk struct {
	path     []string
	form     form
	optional bool
	bounded  bool        // the footer has the least and the largest value
	codec    *zstd.Codec // of the data pages

	// The page. Its values are in one of ints, bytes and index.
	first int // the row of the row group with which it begins
	buffers
	dict  *dictionary // nil: the column has none
	plain bool        // the dictionary is full: the pages that follow do without

	// The chunk.
	meta  format.ColumnMetaData
	least []byte // as the footer has it; nil: there is no value yet
	most  []byte
}

// buffers are the memory of a chunk, which a later object uses again.
type buffers struct {
	levels []byte // of the page's rows, 1: it has a value; as far as the last value, if the column is optional
	ints   []int64
	bytes  []byte
	ends   []uint32 // of the texts in bytes, behind a 0
	index  []int32  // entries of the dictionary
	pages  []byte   // that are written, with their headers
}

// maxSpare is the largest buffer, in bytes, that is used again.
const maxSpare = 2 * pageBytes

// reuse takes the memory of a chunk that is stored.
func (c *chunk) reuse(old *chunk) {
	if cap(old.bytes) <= maxSpare && cap(old.pages) <= maxSpare {
		c.buffers = old.buffers
	}
	if c.dict != nil && old.dict != nil && c.dict.text == old.dict.text {
		c.dict = old.dict
	}
}

// at notes a row that has a value.
func (c *chunk) at(row int) {
	if !c.optional {
		return
	}
	c.pad(row)
	c.levels = append(c.levels, 1)
}

// pad notes that the rows up to the one before to have no value.
func (c *chunk) pad(to int) {
	if n := to - c.first - len(c.levels); n > 0 {
		c.levels = append(c.levels, make([]byte, n)...)
	}
}

// has reports whether a row has a value.
func (c *chunk) has(row int) bool { return row-c.first < len(c.levels) && c.levels[row-c.first] == 1 }

// addBits adds a number of 64 bits, or a bool, as a Typed has it.
func (c *chunk) addBits(row int, bits uint64) {
	c.at(row)
	switch c.form {
	case formBool:
		c.bytes = append(c.bytes, byte(bits))
	case formFloat:
		if c.dict != nil && !c.plain {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], bits)
			c.index = append(c.index, c.dict.index(b[:]))
			return
		}
		c.bytes = binary.LittleEndian.AppendUint64(c.bytes, bits)
	default:
		c.ints = append(c.ints, int64(bits))
	}
}

// addBytes adds a text, a document or an id.
func (c *chunk) addBytes(row int, v []byte) {
	c.at(row)
	switch {
	case c.dict != nil && !c.plain:
		c.index = append(c.index, c.dict.index(v))
		return
	case c.form == formDocument:
		c.bytes = binary.LittleEndian.AppendUint32(c.bytes, uint32(len(v)))
	case c.form == formText && len(c.ends) == 0:
		c.ends = append(c.ends, 0)
	}
	c.bytes = append(c.bytes, v...)
	if c.form == formText {
		c.ends = append(c.ends, uint32(len(c.bytes)))
	}
}

// drop takes the last value out again. The dictionary keeps it.
func (c *chunk) drop() {
	c.levels = c.levels[:len(c.levels)-1]
	switch {
	case c.dict != nil && !c.plain:
		c.index = c.index[:len(c.index)-1]
	case c.form == formText:
		c.ends = c.ends[:len(c.ends)-1]
		c.bytes = c.bytes[:c.ends[len(c.ends)-1]]
	case c.form == formFloat:
		c.bytes = c.bytes[:len(c.bytes)-8]
	case c.form == formBool:
		c.bytes = c.bytes[:len(c.bytes)-1]
	default:
		c.ints = c.ints[:len(c.ints)-1]
	}
}

// size is what the values of the page take in memory, in bytes.
func (c *chunk) size() int { return len(c.bytes) + 4*len(c.ends) + 8*len(c.ints) + 4*len(c.index) }

// settle gives the dictionary up if it has more than most entries: the values of the sample do not repeat then.
func (c *chunk) settle(most int) {
	if len(c.dict.ends) <= most {
		return
	}
	index, dict, optional := c.index, c.dict, c.optional
	c.index, c.dict, c.optional = nil, nil, false
	for _, i := range index {
		c.addBytes(0, dict.entry(int(i)))
	}
	c.optional = optional
}

// cut ends the page. It has the rows of the row group up to the one before to.
func (c *chunk) cut(to int, s *scratch) error {
	rows := to - c.first
	if rows == 0 {
		return nil
	}
	h := format.DataPageHeaderV2{NumValues: int32(rows), NumRows: int32(rows), IsCompressed: thrift.New(true)}
	s.front = s.front[:0]
	if c.optional {
		c.pad(to)
		var err error
		if s.front, err = (&rle.Encoding{BitWidth: 1}).EncodeLevels(s.front, c.levels); err != nil {
			return fmt.Errorf("encode levels: %w", err)
		}
		h.NumNulls, h.DefinitionLevelsByteLength = int32(bytes.Count(c.levels, []byte{0})), int32(len(s.front))
	}
	c.widenByPage()
	data, encoding, err := c.encode(s)
	if err != nil {
		return fmt.Errorf("encode values: %w", err)
	}
	h.Encoding = encoding
	c.count(format.DataPageV2, encoding)
	err = c.page(&c.pages, format.PageHeader{Type: format.DataPageV2, DataPageHeaderV2: thrift.New(h)}, data, s)
	c.meta.NumValues += int64(rows)
	c.meta.Statistics.NullCount += int64(h.NumNulls)
	c.first = to
	c.levels, c.ints, c.bytes, c.ends, c.index = c.levels[:0], c.ints[:0], c.bytes[:0], c.ends[:0], c.index[:0]
	return err
}

// encode is the page's values as the file has them.
func (c *chunk) encode(s *scratch) (data []byte, as format.Encoding, err error) {
	if len(c.index) > 0 {
		s.data, err = new(rle.DictionaryEncoding).EncodeInt32(s.data, c.index)
		return s.data, format.RLEDictionary, err
	}
	switch c.form {
	case formInt, formUint:
		s.data, err = new(delta.BinaryPackedEncoding).EncodeInt64(s.data, c.ints)
		return s.data, format.DeltaBinaryPacked, err
	case formText:
		if len(c.ends) == 0 {
			c.ends = append(c.ends, 0)
		}
		s.data, err = new(delta.LengthByteArrayEncoding).EncodeByteArray(s.data, c.bytes, c.ends)
		return s.data, format.DeltaLengthByteArray, err
	case formBool:
		s.data = append(s.data[:0], make([]byte, (len(c.bytes)+7)/8)...)
		for i, b := range c.bytes {
			s.data[i/8] |= b << (i % 8)
		}
		return s.data, format.Plain, nil
	}
	return c.bytes, format.Plain, nil
}

// page adds a page to those in to. s.front is in front of its compressed part.
func (c *chunk) page(to *[]byte, h format.PageHeader, data []byte, s *scratch) (err error) {
	if len(s.front)+len(data) > math.MaxInt32 {
		return fmt.Errorf("a page of %d bytes, limit %d", len(s.front)+len(data), math.MaxInt32)
	}
	if s.packed, err = c.codec.Encode(s.packed, data); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	h.UncompressedPageSize, h.CompressedPageSize = int32(len(s.front)+len(data)), int32(len(s.front)+len(s.packed))
	h.CRC = int32(crc32.Update(crc32.ChecksumIEEE(s.front), crc32.IEEETable, s.packed))
	s.header.Reset()
	if err := thrift.NewEncoder(new(thrift.CompactProtocol).NewWriter(&s.header)).Encode(&h); err != nil {
		return fmt.Errorf("encode a page's header: %w", err)
	}
	c.meta.TotalUncompressedSize += int64(s.header.Len()) + int64(h.UncompressedPageSize)
	c.meta.TotalCompressedSize += int64(s.header.Len()) + int64(h.CompressedPageSize)
	*to = append(append(append(*to, s.header.Bytes()...), s.front...), s.packed...)
	return nil
}

// count notes a page's encoding.
func (c *chunk) count(page format.PageType, encoding format.Encoding) {
	stats := c.meta.EncodingStats
	for i := range stats {
		if stats[i].PageType == page && stats[i].Encoding == encoding {
			stats[i].Count++
			return
		}
	}
	c.meta.EncodingStats = append(stats, format.PageEncodingStats{PageType: page, Encoding: encoding, Count: 1})
	if !slices.Contains(c.meta.Encoding, encoding) {
		c.meta.Encoding = append(c.meta.Encoding, encoding)
	}
}

// finish ends the chunk, which has that many rows. Its pages are dictionary and pages.
func (c *chunk) finish(rows int, s *scratch) (dictionary, pages []byte, err error) {
	if err := c.cut(rows, s); err != nil {
		return nil, nil, err
	}
	if c.dict != nil && len(c.dict.ends) > 0 {
		c.count(format.DictionaryPage, format.Plain)
		s.front, s.dictionary = s.front[:0], s.dictionary[:0]
		h := format.DictionaryPageHeader{NumValues: int32(len(c.dict.ends)), Encoding: format.Plain}
		if err := c.page(&s.dictionary, format.PageHeader{Type: format.DictionaryPage,
			DictionaryPageHeader: thrift.New(h)}, c.dict.page, s); err != nil {
			return nil, nil, err
		}
		if c.bounded {
			for i := range c.dict.ends {
				c.widen(c.dict.entry(i))
			}
		}
		dictionary = s.dictionary
	}
	c.meta.Type, c.meta.PathInSchema, c.meta.Codec = c.form.physical(), c.path, format.Zstd
	if c.optional {
		c.meta.Encoding = append(c.meta.Encoding, format.RLE)
	}
	if c.least != nil {
		c.meta.Statistics.MinValue, c.meta.Statistics.MaxValue = c.least, c.most
	}
	return dictionary, c.pages, nil
}

// reset empties the chunk for the next row group.
func (c *chunk) reset() {
	c.first, c.plain, c.pages = 0, false, c.pages[:0]
	c.meta, c.least, c.most = format.ColumnMetaData{}, nil, nil
	if c.dict != nil {
		c.dict.reset()
	}
}

// widenByPage widens the bounds by the values that are in no dictionary.
func (c *chunk) widenByPage() {
	if !c.bounded {
		return
	}
	switch c.form {
	case formInt, formUint:
		if len(c.ints) == 0 {
			return
		}
		sign := int64(0) // without its highest bit turned over, a number without a sign may look negative
		if c.form == formUint {
			sign = math.MinInt64
		}
		least, most := c.ints[0]^sign, c.ints[0]^sign
		for _, v := range c.ints {
			least, most = min(least, v^sign), max(most, v^sign)
		}
		c.widen(binary.LittleEndian.AppendUint64(nil, uint64(least^sign)))
		c.widen(binary.LittleEndian.AppendUint64(nil, uint64(most^sign)))
	case formText:
		for i := 1; i < len(c.ends); i++ {
			c.widen(c.bytes[c.ends[i-1]:c.ends[i]])
		}
	default:
		width := c.form.width()
		for i := 0; i < len(c.bytes); i += width {
			c.widen(c.bytes[i : i+width])
		}
	}
}

// width is how many bytes a value takes in buffers.bytes.
func (f form) width() int {
	switch f {
	case formBool:
		return 1
	case formID:
		return 16
	}
	return 8
}

// widen widens the bounds by a value, if need be.
func (c *chunk) widen(v []byte) {
	if c.least == nil || c.form.compare(v, c.least) < 0 {
		c.least = append([]byte{}, v...)
	}
	if c.most == nil || c.form.compare(v, c.most) > 0 {
		c.most = append([]byte{}, v...)
	}
}

// compare compares values in the order that readers of bounds expect.
func (f form) compare(a, b []byte) int {
	switch f {
	case formInt:
		return cmp.Compare(int64(binary.LittleEndian.Uint64(a)), int64(binary.LittleEndian.Uint64(b)))
	case formUint:
		return cmp.Compare(binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(b))
	case formFloat:
		// Of the zeros, readers expect the negative one as the least value and the other as the largest.
		x, y := math.Float64frombits(binary.LittleEndian.Uint64(a)), math.Float64frombits(binary.LittleEndian.Uint64(b))
		if x == y {
			return cmp.Compare(math.Copysign(1, x), math.Copysign(1, y))
		}
		return cmp.Compare(x, y)
	case formID: // most differ in their first half
		if c := cmp.Compare(binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(b)); c != 0 {
			return c
		}
	}
	return bytes.Compare(a, b)
}

// scratch is what the chunks of an object use one after the other.
type scratch struct {
	front, data, packed, dictionary []byte
	header                          bytes.Buffer
}
