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

// form is how a chunk holds its values in memory. The file uses the encoding named beside it for values outside a
// dictionary.
type form uint8

const (
	formInt      form = iota // DELTA_BINARY_PACKED
	formUint                 // as formInt; its bounds compare as unsigned numbers
	formFloat                // PLAIN
	formBool                 // PLAIN
	formText                 // DELTA_LENGTH_BYTE_ARRAY
	formDocument             // PLAIN: length, then bytes; also in memory
	formID                   // PLAIN, 16 bytes
)

func (f form) physical() format.Type {
	return [...]format.Type{format.Int64, format.Int64, format.Double, format.Boolean, format.ByteArray, format.ByteArray,
		format.FixedLenByteArray}[f]
}

// chunk is one column of the row group that is being written. It holds the values in the order of arrival. When the row
// group is full, finish sorts them and writes pages.
//
// parquet-go writes columns from its own Values of 24 bytes each. Unpacking them took a third of the cost of receiving
// an event. Here each value keeps its natural size. Encodings and file structures are still parquet-go's.
type chunk struct {
	path     []string
	form     form
	optional bool
	bounded  bool        // the footer has minimum and maximum
	codec    *zstd.Codec // for data pages
	plain    *zstd.Codec // for data pages of a row group whose dictionary is too large

	buffers
	dict *dictionary // nil: no dictionary

	meta  format.ColumnMetaData
	least []byte // as in the footer; nil: no value yet
	most  []byte
}

// buffers are a chunk's memory, which later objects reuse. The values are in one of ints, bytes and index.
type buffers struct {
	rows  []uint32 // rows that have a value; unused if the column is required
	ints  []int64
	bytes []byte
	ends  []uint32 // where each text or document ends in bytes, after a leading 0
	index []int32  // dictionary entries
	pages []byte   // finished pages with their headers
}

// maxSpare is the largest buffer that is reused, in bytes.
const maxSpare = groupHeld

// reuse takes over the memory of a chunk that is already stored.
func (c *chunk) reuse(old *chunk) {
	if cap(old.bytes) <= maxSpare && cap(old.pages) <= maxSpare {
		c.buffers = old.buffers
	}
	if c.dict != nil && old.dict != nil && c.dict.text == old.dict.text {
		c.dict = old.dict
	}
}

// at records that a row has a value.
func (c *chunk) at(row int) {
	if c.optional {
		c.rows = append(c.rows, uint32(row))
	}
}

// has reports whether a row has a value. No later row may have one yet.
func (c *chunk) has(row int) bool { return len(c.rows) > 0 && c.rows[len(c.rows)-1] == uint32(row) }

// addBits adds a number of 64 bits or a bool, encoded as in pipeline.Typed.
func (c *chunk) addBits(row int, bits uint64) {
	c.at(row)
	switch c.form {
	case formBool:
		c.bytes = append(c.bytes, byte(bits))
	case formFloat:
		if c.dict != nil {
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
	if c.dict != nil {
		c.index = append(c.index, c.dict.index(v))
		return
	}
	c.addPlain(v)
}

// addPlain adds a value outside the dictionary.
func (c *chunk) addPlain(v []byte) {
	if c.form.long() && len(c.ends) == 0 {
		c.ends = append(c.ends, 0)
	}
	if c.form == formDocument {
		c.bytes = binary.LittleEndian.AppendUint32(c.bytes, uint32(len(v)))
	}
	c.bytes = append(c.bytes, v...)
	if c.form.long() {
		c.ends = append(c.ends, uint32(len(c.bytes)))
	}
}

// long reports whether values have different lengths.
func (f form) long() bool { return f == formText || f == formDocument }

// drop removes the last value. The dictionary keeps its entry.
func (c *chunk) drop() {
	c.rows = c.rows[:len(c.rows)-1]
	switch {
	case c.dict != nil:
		c.index = c.index[:len(c.index)-1]
	case c.form.long():
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

// size is the memory of the values, in bytes.
func (c *chunk) size() int {
	n := len(c.bytes) + 4*(len(c.ends)+len(c.index)+len(c.rows)) + 8*len(c.ints)
	if c.dict != nil {
		n += len(c.dict.page)
	}
	return n
}

// settle drops the dictionary if it has more than most entries: then the values of the sample do not repeat.
func (c *chunk) settle(most int) {
	if len(c.dict.ends) > most {
		c.undo()
	}
}

// undo drops the dictionary and stores the values themselves.
func (c *chunk) undo() {
	for _, i := range c.index {
		c.addPlain(c.dict.entry(int(i)))
	}
	c.dict, c.index = nil, c.index[:0]
}

// cut adds pages of the values, in the order of the row group.
func (c *chunk) cut(s *scratch) error {
	rows := len(s.order)
	values, present := s.order, bitmap(nil)
	if c.optional && len(c.rows) < rows {
		values, present = s.arrange(c.rows)
	}
	for from := 0; from < rows; {
		n, to := len(values), rows
		if c.dict == nil && c.form.long() {
			n, to = c.fit(values, present, from, rows)
		}
		if err := c.cutPage(values[:n], present, from, to, s); err != nil {
			return err
		}
		values, from = values[n:], to
	}
	return nil
}

// fit returns how many of the values fill a page that begins with row from, and the row after the page. In columns
// without long values, a row group has less than one page.
func (c *chunk) fit(values []uint32, present bitmap, from, rows int) (n, to int) {
	size := 0
	for to = from; to < rows && size < pageBytes; to++ {
		if present == nil || present.has(to) {
			size += int(c.ends[values[n]+1] - c.ends[values[n]])
			n++
		}
	}
	return n, to
}

// cutPage adds a page with these values for the rows from..to. present says which of these rows have a value; nil: all.
func (c *chunk) cutPage(values []uint32, present bitmap, from, to int, s *scratch) error {
	rows := to - from
	h := format.DataPageHeaderV2{NumValues: int32(rows), NumRows: int32(rows), NumNulls: int32(rows - len(values)),
		IsCompressed: thrift.New(true)}
	s.front = s.front[:0]
	if c.optional {
		s.front = present.appendLevels(s.front, from, to)
		h.DefinitionLevelsByteLength = int32(len(s.front))
	}
	data, encoding, err := c.encode(values, s)
	if err != nil {
		return fmt.Errorf("encode values: %w", err)
	}
	h.Encoding = encoding
	c.count(format.DataPageV2, encoding)
	c.meta.NumValues += int64(rows)
	c.meta.Statistics.NullCount += int64(h.NumNulls)
	return c.page(&c.pages, format.PageHeader{Type: format.DataPageV2, DataPageHeaderV2: thrift.New(h)}, data, s)
}

// encode returns values of the chunk, in this order, as the file stores them.
func (c *chunk) encode(values []uint32, s *scratch) (data []byte, as format.Encoding, err error) {
	if len(c.index) > 0 {
		s.index = s.index[:0]
		for _, i := range values {
			s.index = append(s.index, c.index[i])
		}
		s.data, err = new(rle.DictionaryEncoding).EncodeInt32(s.data, s.index)
		return s.data, format.RLEDictionary, err
	}
	s.bytes = s.bytes[:0]
	switch c.form {
	case formInt, formUint:
		s.ints = s.ints[:0]
		for _, i := range values {
			s.ints = append(s.ints, c.ints[i])
		}
		s.data, err = new(delta.BinaryPackedEncoding).EncodeInt64(s.data, s.ints)
		return s.data, format.DeltaBinaryPacked, err
	case formText:
		text, ends := c.texts(values, s)
		s.data, err = new(delta.LengthByteArrayEncoding).EncodeByteArray(s.data, text, ends)
		return s.data, format.DeltaLengthByteArray, err
	case formDocument:
		data, _ = c.texts(values, s)
		return data, format.Plain, nil
	case formBool:
		s.bytes = append(s.bytes, make([]byte, (len(values)+7)/8)...)
		for at, i := range values {
			s.bytes[at/8] |= c.bytes[i] << (at % 8)
		}
	default:
		width := uint32(c.form.width())
		for _, i := range values {
			s.bytes = append(s.bytes, c.bytes[i*width:(i+1)*width]...)
		}
	}
	return s.bytes, format.Plain, nil
}

// texts returns values in this order: their bytes, and where each ends, after a leading 0.
func (c *chunk) texts(values []uint32, s *scratch) (text []byte, ends []uint32) {
	if len(values) == 1 { // it may be very large
		i := values[0]
		text = c.bytes[c.ends[i]:c.ends[i+1]]
		return text, []uint32{0, uint32(len(text))}
	}
	s.ends = append(s.ends[:0], 0)
	for _, i := range values {
		s.bytes = append(s.bytes, c.bytes[c.ends[i]:c.ends[i+1]]...)
		s.ends = append(s.ends, uint32(len(s.bytes)))
	}
	return s.bytes, s.ends
}

// page appends a page to to. s.front precedes the compressed part.
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

// count records a page's encoding for the footer.
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

// finish ends the chunk and returns its dictionary page and data pages.
func (c *chunk) finish(s *scratch) (dictionary, pages []byte, err error) {
	given, codec := c.dict, c.codec
	if c.dict != nil && len(c.dict.page) > maxDictionary {
		c.undo()
		c.codec = c.plain
	}
	if c.dict == nil {
		c.widenByValues()
	}
	if err := c.cut(s); err != nil {
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
	c.dict, c.codec = given, codec
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
	c.buffers = buffers{c.rows[:0], c.ints[:0], c.bytes[:0], c.ends[:0], c.index[:0], c.pages[:0]}
	c.meta, c.least, c.most = format.ColumnMetaData{}, nil, nil
	if c.dict != nil {
		c.dict.reset()
	}
}

// widenByValues widens the bounds by the values outside the dictionary.
func (c *chunk) widenByValues() {
	if !c.bounded {
		return
	}
	switch c.form {
	case formInt, formUint:
		if len(c.ints) == 0 {
			return
		}
		sign := int64(0) // flipping the highest bit makes signed comparison work for unsigned numbers
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

// width is the size of a value in buffers.bytes, in bytes.
func (f form) width() int {
	switch f {
	case formBool:
		return 1
	case formID:
		return 16
	}
	return 8
}

// widen widens the bounds if the value is outside of them.
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
		// Readers expect -0 as the minimum and +0 as the maximum.
		x, y := math.Float64frombits(binary.LittleEndian.Uint64(a)), math.Float64frombits(binary.LittleEndian.Uint64(b))
		if x == y {
			return cmp.Compare(math.Copysign(1, x), math.Copysign(1, y))
		}
		return cmp.Compare(x, y)
	case formID: // most ids differ in their first half
		if c := cmp.Compare(binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(b)); c != 0 {
			return c
		}
	}
	return bytes.Compare(a, b)
}
