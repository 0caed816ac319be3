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
	"strings"

	"github.com/klauspost/compress/zstd"
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
	bounded  bool    // the footer has minimum and maximum
	repeats  float64 // a dictionary pays if at most this share of the values are distinct; 0: unused

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
	present bitmap  // rows that have a value; of documents, those that have members; unused in other required columns
	numbers numbers // dictionary entries; or whole numbers less the first one, as zigzag returns them
	bytes   []byte
	ends    []uint32 // where each text or document ends in bytes, after a leading 0
}

// spare is the size of the buffers, in bytes.
func (b *buffers) spare() int {
	return 8*cap(b.present) + cap(b.numbers.bytes) + cap(b.bytes) + 4*cap(b.ends)
}

// reuse takes over the memory of a chunk that is already stored.
func (c *chunk) reuse(old *chunk) {
	c.buffers = old.buffers
	c.numbers.width = 0
	if c.dict != nil && old.dict != nil && c.dict.text == old.dict.text {
		c.dict = old.dict
	}
}

// name is the column's name in messages.
func (c *chunk) name() string { return strings.Join(c.path, ".") }

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
	if c.form == formDocument && c.dict == nil {
		c.addDocument(row, v)
		return
	}
	c.at(row)
	if c.dict != nil {
		c.numbers.add(uint64(c.dict.indexOf(v)))
		return
	}
	c.addPlain(v)
}

// addDocument adds a document outside the dictionary. Most are empty, because all members are in columns. They are
// added again when the page is written.
func (c *chunk) addDocument(row int, v []byte) {
	if len(v) > len(emptyDocument) {
		c.n++
		c.present.set(row)
		c.addPlain(v)
	}
}

const emptyDocument = "{}"

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
	if pays && c.form == formInt {
		var err error
		if pays, err = c.shrinks(distinct, rows, s); err != nil {
			return err
		}
	}
	if c.late = pays && distinct > maxLookups && c.form != formInt; c.late || !pays {
		c.undo()
	}
	return nil
}

// pays reports whether a dictionary of so many entries like those of d is worth it for n values.
func (c *chunk) pays(d *dictionary, entries, n int) bool {
	return float64(entries) <= c.repeats*float64(n) && d.plainSize()*entries <= maxDictionary*d.n
}

// shrinks reports whether a dictionary makes whole numbers smaller, if rows values like those of the chunk have so many
// distinct ones.
func (c *chunk) shrinks(distinct, rows int, s *scratch) (bool, error) {
	plain, err := c.undone(s)
	return bits.Len(uint(distinct-1))*rows/8+numberBytes/2*distinct < plain*(rows/c.n), err
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
	if c.numbers = (numbers{}); c.form == formDocument {
		c.n = 0
	}
	for i := range uint32(index.n) {
		switch entry := int(index.at(i)); {
		case c.form == formDocument: // its rows are 0, 1, 2 and so on
			c.addDocument(int(i), c.dict.entry(entry))
		case c.dict.text:
			c.addPlain(c.dict.entry(entry))
		default:
			c.addNumber(c.dict.bits[entry])
		}
	}
	c.dict = nil
}

// cut writes pages of the values, in the order of the row group.
func (c *chunk) cut(s *scratch, to *sink) error {
	c.meta.DataPageOffset = to.written
	if c.form == formDocument && c.dict == nil {
		return c.cutDocuments(s, to)
	}
	rows := len(s.order)
	values, present := s.order, bitmap(nil)
	if c.optional && c.n < rows {
		values, present = s.arrange(c.present)
	}
	for from := 0; from < rows; {
		n, end := c.fit(values), rows
		if n < len(values) {
			end = present.behind(from, n)
		}
		s.front = s.front[:0]
		if c.optional {
			s.front = present.appendLevels(s.front, from, end)
		}
		data, encoding, err := c.encode(values[:n], s)
		if err != nil {
			return fmt.Errorf("encode values: %w", err)
		}
		if err := c.dataPage(data, encoding, end-from, end-from-n, s, to); err != nil {
			return err
		}
		values, from = values[n:], end
	}
	return nil
}

// cutDocuments writes pages of documents outside the dictionary.
func (c *chunk) cutDocuments(s *scratch, to *sink) error {
	empty := append(binary.LittleEndian.AppendUint32(nil, uint32(len(emptyDocument))), emptyDocument...)
	values, present := s.arrange(c.present)
	s.front = s.front[:0]
	for from, end := 0, 0; from < len(s.order); from = end {
		s.bytes = s.bytes[:0]
		data := s.bytes
		for ; end < len(s.order) && end-from < pageRows && len(data) < pageBytes; end++ {
			document := empty
			if present.has(end) {
				document = c.textAt(values[0])
				values = values[1:]
			}
			if end == from && len(document) >= pageBytes { // it may be very large
				data = document
			} else {
				s.bytes = append(s.bytes, document...)
				data = s.bytes
			}
		}
		if err := c.dataPage(data, format.Plain, end-from, 0, s, to); err != nil {
			return err
		}
	}
	return nil
}

// fit returns how many of the values fill a page.
func (c *chunk) fit(values []uint32) int {
	most := min(len(values), pageRows)
	if c.dict != nil || c.form != formText {
		return most
	}
	size := 0
	for n, i := range values[:most] {
		if size >= pageBytes {
			return n
		}
		size += len(c.textAt(i))
	}
	return most
}

// dataPage writes a page. s.front has the levels of its rows.
func (c *chunk) dataPage(data []byte, encoding format.Encoding, rows, nulls int, s *scratch, to *sink) error {
	h := format.DataPageHeaderV2{NumValues: int32(rows), NumRows: int32(rows), NumNulls: int32(nulls), Encoding: encoding,
		DefinitionLevelsByteLength: int32(len(s.front)), IsCompressed: thrift.New(true)}
	c.count(format.DataPageV2, encoding)
	c.meta.NumValues += int64(rows)
	c.meta.Statistics.NullCount += int64(nulls)
	pack := s.pack.fast()
	if c.dict == nil && c.form.long() { // worth slower compression: ids shrink to half, documents to nine tenths
		pack = s.pack.better()
	}
	return c.page(format.PageHeader{Type: format.DataPageV2, DataPageHeaderV2: thrift.New(h)}, data, pack, s, to)
}

// encode returns values of the chunk, in this order, as the file stores them.
func (c *chunk) encode(values []uint32, s *scratch) (data []byte, as format.Encoding, err error) {
	if c.dict != nil && len(values) > 0 {
		s.index = s.index[:0]
		for _, i := range values {
			s.index = append(s.index, int32(s.ranks[c.numbers.at(i)]))
		}
		s.data, err = encodeIndex(s.data, s.index)
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

// encodeIndex encodes indexes of a dictionary. Each takes a whole number of nibbles if it fits in a byte, so that zstd
// codes the frequent ones in fewer bits.
func encodeIndex(to []byte, index []int32) ([]byte, error) {
	width := bits.Len32(uint32(slices.Max(index)))
	switch {
	case width == 3:
		width = 4
	case width > 4 && width < 8:
		width = 8
	}
	to, err := (&rle.Encoding{BitWidth: width}).EncodeInt32(to, index)
	return slices.Insert(to, 0, byte(width)), err
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

// page writes a page. s.front precedes the compressed part.
func (c *chunk) page(h format.PageHeader, data []byte, pack *zstd.Encoder, s *scratch, to *sink) error {
	if len(s.front)+len(data) > math.MaxInt32 {
		return fmt.Errorf("a page of %d bytes, limit %d", len(s.front)+len(data), math.MaxInt32)
	}
	s.packed = pack.EncodeAll(data, s.packed[:0])
	h.UncompressedPageSize, h.CompressedPageSize = int32(len(s.front)+len(data)), int32(len(s.front)+len(s.packed))
	h.CRC = int32(crc32.Update(crc32.ChecksumIEEE(s.front), crc32.IEEETable, s.packed))
	s.header.Reset()
	if err := thrift.NewEncoder(new(thrift.CompactProtocol).NewWriter(&s.header)).Encode(&h); err != nil {
		return fmt.Errorf("encode a page's header: %w", err)
	}
	s.header.Write(s.front)
	c.meta.TotalUncompressedSize += int64(s.header.Len() + len(data))
	c.meta.TotalCompressedSize += int64(s.header.Len() + len(s.packed))
	if err := to.write(s.header.Bytes()); err != nil {
		return err
	}
	return to.write(s.packed)
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

// finish writes the chunk: its dictionary page and its data pages.
func (c *chunk) finish(s *scratch, to *sink) error {
	given := c.dict
	switch {
	case c.n == 0:
	case c.late:
		c.dict = s.collector.collect(c)
	case c.dict != nil:
		pays := c.pays(c.dict, c.dict.n, c.n)
		if pays && c.form == formInt && c.dict.n > maxLookups { // times may repeat less than the sample foresaw
			var err error
			if pays, err = c.shrinks(c.dict.n, c.n, s); err != nil {
				return err
			}
		}
		if !pays {
			c.undo()
		}
	}
	if c.dict != nil && c.n > 0 {
		if err := c.finishDictionary(s, to); err != nil {
			return err
		}
	} else if c.bounded {
		c.widenByValues()
	}
	if err := c.cut(s, to); err != nil {
		return err
	}
	c.dict = given
	c.meta.Type, c.meta.PathInSchema, c.meta.Codec = c.form.physical(), c.path, format.Zstd
	if c.optional {
		c.meta.Encoding = append(c.meta.Encoding, format.RLE)
	}
	if c.least != nil {
		c.meta.Statistics.MinValue, c.meta.Statistics.MaxValue = c.least, c.most
	}
	return nil
}

// finishDictionary writes the dictionary page. Its entries are sorted, because similar neighbours compress better:
// those of 50,000 users take a third.
func (c *chunk) finishDictionary(s *scratch, to *sink) error {
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
	c.meta.DictionaryPageOffset = to.written
	return c.page(format.PageHeader{Type: format.DictionaryPage, DictionaryPageHeader: thrift.New(h)}, s.bytes,
		s.pack.fast(), s, to)
}

// reset empties the chunk for the next row group, which is likely as large.
func (c *chunk) reset() {
	c.present, c.bytes, c.ends, c.n = c.present[:0], emptied(c.bytes), emptied(c.ends), 0
	c.numbers.reset()
	c.meta, c.least, c.most = format.ColumnMetaData{}, nil, nil
	if c.dict != nil {
		c.dict.reset()
	}
}

// emptied returns an empty slice. It keeps the memory if half of it was used.
func emptied[T any](used []T) []T {
	if 2*len(used) < cap(used) {
		return nil
	}
	return used[:0]
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
	case formID:
		c.widenByIDs()
	default:
		width := c.form.width()
		for i := 0; i < len(c.bytes); i += width {
			c.widen(c.bytes[i : i+width])
		}
	}
}

// widenByIDs compares the first halves, in which most ids differ, as numbers.
func (c *chunk) widenByIDs() {
	least, most := uint64(math.MaxUint64), uint64(0)
	for i := 0; i < len(c.bytes); i += formID.width() {
		if half := binary.BigEndian.Uint64(c.bytes[i:]); half <= least || half >= most {
			least, most = min(least, half), max(most, half)
			c.widen(c.bytes[i : i+formID.width()])
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
	}
	return bytes.Compare(a, b)
}
