package codec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"slices"

	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/penstock/penstock/internal/pipeline"
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
	repeats  float64     // a dictionary pays if at most this share of the values are distinct; 0: unused
	codec    *zstd.Codec // for data pages
	plain    *zstd.Codec // for data pages outside a dictionary
	fast     *zstd.Codec // for dictionaries and their data pages

	buffers
	dict *dictionary // nil: no dictionary
	late bool        // finish may make a dictionary
	n    int         // values
	base uint64      // formInt, formUint: the first value

	meta  format.ColumnMetaData
	least []byte // as in the footer; nil: no value yet
	most  []byte
}

// buffers are a chunk's memory, which later objects reuse. The values are in one of numbers and bytes.
type buffers struct {
	present bitmap  // rows that have a value; unused if the column is required
	numbers numbers // dictionary entries; or whole numbers less the first one, as zigzag returns them
	bytes   []byte
	ends    []uint32 // where each text or document ends in bytes, after a leading 0
}

// maxSpare is the largest buffer that is reused, in bytes.
const maxSpare = groupHeld

// reuse takes over the memory of a chunk that is already stored.
func (c *chunk) reuse(old *chunk) {
	if cap(old.bytes) <= maxSpare {
		c.buffers = old.buffers
		c.numbers.width = 0
	}
	if c.dict != nil && old.dict != nil && c.dict.text == old.dict.text {
		c.dict = old.dict
	}
}

// at records that a row has a value.
func (c *chunk) at(row int) {
	c.n++
	if c.optional {
		c.present.set(row)
	}
}

// has reports whether a row has a value.
func (c *chunk) has(row int) bool { return row/64 < len(c.present) && c.present.has(row) }

// addBits adds a number of 64 bits or a bool, encoded as in pipeline.Typed.
func (c *chunk) addBits(row int, bits uint64) {
	c.at(row)
	switch {
	case c.form == formBool:
		c.bytes = append(c.bytes, byte(bits))
	case c.dict != nil:
		c.numbers.add(uint64(c.dict.indexOfBits(bits)))
	default:
		c.addNumber(bits)
	}
}

// addNumber adds a number of 64 bits outside the dictionary.
func (c *chunk) addNumber(bits uint64) {
	if c.form == formFloat {
		c.bytes = binary.LittleEndian.AppendUint64(c.bytes, bits)
		return
	}
	if c.numbers.n == 0 {
		c.base = bits
	}
	c.numbers.add(zigzag(int64(bits - c.base)))
}

// addBytes adds a text, a document or an id.
func (c *chunk) addBytes(row int, v []byte) {
	c.at(row)
	if c.dict != nil {
		c.numbers.add(uint64(c.dict.indexOf(v)))
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

// drop removes the value of a row, which is the last one. The dictionary keeps its entry.
func (c *chunk) drop(row int) {
	c.n--
	c.present.clear(row)
	switch {
	case c.dict != nil:
		c.numbers.drop()
	case c.form.long():
		c.ends = c.ends[:len(c.ends)-1]
		c.bytes = c.bytes[:c.ends[len(c.ends)-1]]
	case c.form == formFloat:
		c.bytes = c.bytes[:len(c.bytes)-numberBytes]
	case c.form == formBool:
		c.bytes = c.bytes[:len(c.bytes)-1]
	default:
		c.numbers.drop()
	}
}

// size is the memory of the values, in bytes.
func (c *chunk) size() int {
	n := len(c.bytes) + 4*len(c.ends) + len(c.numbers.bytes) + 8*len(c.present)
	if c.dict != nil {
		n += c.dict.size()
	}
	return n
}

// settle decides by the sample how the values are held: in a dictionary, or as they are. rows values are expected.
func (c *chunk) settle(rows int, s *scratch) error {
	if c.dict == nil || c.n == 0 {
		return nil
	}
	distinct := foreseen(c.dict.n, c.n, rows)
	pays := c.pays(c.dict, distinct, rows)
	if c.form == formInt && pays {
		plain, err := c.undone(s)
		if err != nil {
			return err
		}
		pays = bits.Len(uint(distinct-1))*rows/8+numberBytes/2*distinct < plain*(rows/c.n)
	}
	if c.late = pays && distinct > maxLookups && c.form != formInt; c.late || !pays {
		c.undo()
	}
	return nil
}

// pays reports whether a dictionary of so many entries like those of d is worth it for n values.
func (c *chunk) pays(d *dictionary, entries, n int) bool {
	return float64(entries) <= c.repeats*float64(n) && d.plainSize()/d.n*entries <= maxDictionary
}

// undone returns the size of whole numbers outside a dictionary, in bytes.
func (c *chunk) undone(s *scratch) (int, error) {
	s.ints = s.ints[:0]
	for i := range uint32(c.n) {
		s.ints = append(s.ints, int64(c.dict.bits[c.numbers.at(i)]))
	}
	data, err := new(delta.BinaryPackedEncoding).EncodeInt64(s.data, s.ints)
	s.data = data
	return len(data), err
}

// undo drops the dictionary and stores the values themselves.
func (c *chunk) undo() {
	index := c.numbers
	c.numbers = numbers{}
	for i := range uint32(index.n) {
		if entry := int(index.at(i)); c.dict.text {
			c.addPlain(c.dict.entry(entry))
		} else {
			c.addNumber(c.dict.bits[entry])
		}
	}
	c.dict = nil
}

// cut adds pages of the values, in the order of the row group.
func (c *chunk) cut(s *scratch) error {
	rows := len(s.order)
	values, present := s.order, bitmap(nil)
	if c.optional && c.n < rows {
		values, present = s.arrange(c.present)
	}
	for from := 0; from < rows; {
		n := c.fit(values)
		to := rows
		if n < len(values) {
			to = present.behind(from, n)
		}
		if err := c.cutPage(values[:n], present, from, to, s); err != nil {
			return err
		}
		values, from = values[n:], to
	}
	return nil
}

// fit returns how many of the values fill a page.
func (c *chunk) fit(values []uint32) int {
	most := min(len(values), pageRows)
	if c.dict != nil || !c.form.long() {
		return most
	}
	size := 0
	for n, i := range values[:most] {
		if size >= pageBytes {
			return n
		}
		size += int(c.ends[i+1] - c.ends[i])
	}
	return most
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
	return c.page(&s.pages, format.PageHeader{Type: format.DataPageV2, DataPageHeaderV2: thrift.New(h)}, data, s)
}

// encode returns values of the chunk, in this order, as the file stores them.
func (c *chunk) encode(values []uint32, s *scratch) (data []byte, as format.Encoding, err error) {
	if c.dict != nil && len(values) > 0 {
		s.index = s.index[:0]
		for _, i := range values {
			s.index = append(s.index, int32(s.ranks[c.numbers.at(i)]))
		}
		s.data, err = new(rle.DictionaryEncoding).EncodeInt32(s.data, s.index)
		return s.data, format.RLEDictionary, err
	}
	s.bytes = s.bytes[:0]
	switch c.form {
	case formInt, formUint:
		s.ints = s.ints[:0]
		for _, i := range values {
			s.ints = append(s.ints, int64(c.base)+zagzig(c.numbers.at(i)))
		}
		c.widenByNumbers(s.ints)
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

// finish ends the chunk and returns its dictionary page and data pages, valid until the next call for any chunk.
func (c *chunk) finish(s *scratch) (dictionary, pages []byte, err error) {
	given, codec := c.dict, c.codec
	switch {
	case c.n == 0:
	case c.late:
		if c.dict = s.collector.collect(c); c.dict != nil {
			c.codec = c.fast
		}
	case c.dict != nil && !c.pays(c.dict, c.dict.n, c.n):
		c.undo()
		c.codec = c.plain
	}
	s.pages, s.dictionary = s.pages[:0], s.dictionary[:0]
	if c.dict != nil && c.n > 0 {
		if err := c.finishDictionary(s); err != nil {
			return nil, nil, err
		}
	} else if c.bounded {
		c.widenByValues()
	}
	if err := c.cut(s); err != nil {
		return nil, nil, err
	}
	c.dict, c.codec = given, codec
	c.meta.Type, c.meta.PathInSchema, c.meta.Codec = c.form.physical(), c.path, format.Zstd
	if c.optional {
		c.meta.Encoding = append(c.meta.Encoding, format.RLE)
	}
	if c.least != nil {
		c.meta.Statistics.MinValue, c.meta.Statistics.MaxValue = c.least, c.most
	}
	return s.dictionary, s.pages, nil
}

// finishDictionary makes the dictionary page. Its entries are sorted, because similar neighbours compress better: those
// of 50,000 users take a third.
func (c *chunk) finishDictionary(s *scratch) error {
	sorted := c.dict.sorted(c.form, s)
	s.ranks = ranks(sorted, s.ranks)
	s.bytes = s.bytes[:0]
	for _, k := range sorted {
		s.bytes = c.dict.appendPlain(s.bytes, int(k.Row))
	}
	if c.bounded {
		for _, k := range []pipeline.SortKey{sorted[0], sorted[len(sorted)-1]} {
			s.front = c.dict.appendPlain(s.front[:0], int(k.Row))
			if c.dict.text {
				s.front = s.front[lengthBytes:]
			}
			c.widen(s.front)
		}
	}
	c.count(format.DictionaryPage, format.Plain)
	s.front = s.front[:0]
	h := format.DictionaryPageHeader{NumValues: int32(len(sorted)), Encoding: format.Plain}
	return c.page(&s.dictionary, format.PageHeader{Type: format.DictionaryPage, DictionaryPageHeader: thrift.New(h)},
		s.bytes, s)
}

// reset empties the chunk for the next row group.
func (c *chunk) reset() {
	c.present, c.bytes, c.ends, c.n = c.present[:0], c.bytes[:0], c.ends[:0], 0
	c.numbers.reset()
	c.meta, c.least, c.most = format.ColumnMetaData{}, nil, nil
	if c.dict != nil {
		c.dict.reset()
	}
}

// widenByNumbers widens the bounds by values of formInt or formUint.
func (c *chunk) widenByNumbers(values []int64) {
	if !c.bounded || len(values) == 0 {
		return
	}
	sign := int64(0) // flipping the highest bit makes signed comparison work for unsigned numbers
	if c.form == formUint {
		sign = math.MinInt64
	}
	least, most := values[0]^sign, values[0]^sign
	for _, v := range values {
		least, most = min(least, v^sign), max(most, v^sign)
	}
	c.widen(binary.LittleEndian.AppendUint64(nil, uint64(least^sign)))
	c.widen(binary.LittleEndian.AppendUint64(nil, uint64(most^sign)))
}

// widenByValues widens the bounds by the values outside the dictionary.
func (c *chunk) widenByValues() {
	switch c.form {
	case formInt, formUint: // widenByNumbers
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
