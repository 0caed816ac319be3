package foreign

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding/unicode"

	"github.com/penstock/penstock/internal/pipeline"
)

// Format is what a file holds once it is decompressed.
type Format uint8

// The formats, by what a file begins with.
const (
	JSON    Format = iota // values one after the other, or in arrays
	CSV                   // with a header
	TSV                   // with a header, escaped by backslashes as ClickHouse, MySQL and PostgreSQL write it
	Parquet               // this and all below are decoded by ClickHouse
	ORC
	Avro
	Arrow
	ArrowStream
)

var formatNames = [...]string{"JSON", "CSV", "TSV", "Parquet", "ORC", "Avro", "Arrow", "ArrowStream"}

// String is the name that ClickHouse has for the format, but for CSV and TSV,
// which this package reads itself.
func (f Format) String() string { return formatNames[f] }

// ByServer reports whether ClickHouse has to decode the format.
func (f Format) ByServer() bool { return f >= Parquet }

// File is a foreign object on disk.
type File struct {
	Data     io.ReaderAt
	Size     int64  // bytes
	Key      string // its name tells CSV from TSV, and compression that has no magic number
	Encoding string // Content-Encoding, as the store has it; empty: none
	Text     int64  // bytes once it is decompressed, if that is known; 0: bounded by MaxText and the size
}

// MaxText bounds a file once it is decompressed, in bytes. A loader reads that in some minutes.
const MaxText = 64 << 30

// A file may decompress to smallText bytes whatever its size, and beyond that to maxRatio times its size: only one
// that is made to keep loaders busy comes to more. 346 bytes of zstd within zstd are 100 GiB.
const (
	smallText = 1 << 30
	maxRatio  = 10_000
)

// limit is the most bytes that the file may have once it is decompressed.
func (f File) limit() int64 {
	if f.Text > 0 {
		return f.Text
	}
	if f.Size > MaxText/maxRatio {
		return MaxText
	}
	return max(smallText, maxRatio*f.Size)
}

// bounded reads until more than left bytes came.
type bounded struct {
	in    io.Reader
	left  int64
	limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.in.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, wrongFormat("decompression_bomb",
			"it decompresses to more than %d bytes; if it is no attack, split it or store it less compressed", b.limit)
	}
	return n, err
}

// wrongFormat says that a file cannot be read until it is stored in another form.
func wrongFormat(code, format string, args ...any) error {
	return &pipeline.FileError{Code: code, Final: true, Err: fmt.Errorf(format, args...)}
}

// maxLayers bounds how many times a file may be compressed within itself: gzip
// bytes in a file named .gz that a proxy has compressed once more are two.
const maxLayers = 3

// peekBytes is how much of a text is looked at to tell what it is.
const peekBytes = 4 << 10

// window and innerWindow bound what a zstd stream may ask for, in bytes: the
// outermost what `zstd --long` writes, one within another what is usual.
const (
	window      = 128 << 20
	innerWindow = 8 << 20
)

// Detect tells what a file holds, by its bytes first and by its name last.
func Detect(f File) (Format, error) {
	if f.Size == 0 {
		return JSON, nil // no rows
	}
	text, layers, err := open(f)
	if err != nil {
		return 0, err
	}
	defer text.Close()
	head, err := text.Peek(peekBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("decompress: %w", err)
	}
	if format, ok := container(head); ok {
		if len(layers) > 0 {
			return 0, wrongFormat("unsupported_compression",
				"it is %s within %s; store the file as it is, for its columns are compressed already",
				format, strings.Join(layers, " within "))
		}
		return format, nil
	}
	return textFormat(head, f.Key)
}

// container finds the formats that begin with a magic number.
func container(head []byte) (Format, bool) {
	for _, c := range []struct {
		mark   string
		format Format
	}{
		{"PAR1", Parquet}, {"ORC", ORC}, {"Obj\x01", Avro}, {"ARROW1\x00\x00", Arrow},
		{"\xff\xff\xff\xff", ArrowStream}, // the continuation mark before its schema
	} {
		if bytes.HasPrefix(head, []byte(c.mark)) && !isText(head) { // a table may have a column ORCID
			return c.format, true
		}
	}
	return 0, false
}

// textFormat tells what a text is: JSON by how it begins, tables by their
// name, and lines that are no JSON only where the name promises JSON.
func textFormat(head []byte, key string) (Format, error) {
	if bytes.IndexByte(head, 0) >= 0 {
		return 0, wrongFormat("unknown_format",
			"it is binary (it begins with %q) and none of gzip, zstd, bzip2, snappy, Parquet, ORC, Avro or Arrow",
			head[:min(len(head), 8)])
	}
	text := bytes.TrimLeft(head, "\ufeff \t\r\n\x1e")
	ending := strings.ToLower(path.Ext(plainName(key)))
	switch {
	case ending == ".csv":
		return CSV, nil
	case ending == ".tsv" || ending == ".tab":
		return TSV, nil
	case len(text) == 0 || text[0] == '{' || text[0] == '[':
		return JSON, nil
	case ending == ".json" || ending == ".ndjson" || ending == ".jsonl":
		return JSON, nil // each line that is none is rejected
	}
	return 0, wrongFormat("unknown_format",
		"it begins with %.40q, which is no JSON, and its name ends in none of .csv, .tsv, .tab, .json, .ndjson, .jsonl", text)
}

// plainName is a key's last part without endings that name a compression.
func plainName(key string) string {
	name := path.Base(key)
	for {
		ext := path.Ext(name)
		switch strings.ToLower(ext) {
		case ".gz", ".gzip", ".zst", ".zstd", ".bz2", ".sz", ".snappy", ".br":
			name = strings.TrimSuffix(name, ext)
		default:
			return name
		}
	}
}

// stream is a text being read, with what it takes to read it.
type stream struct {
	*bufio.Reader
	closers []func()
}

func (s *stream) Close() {
	for _, c := range s.closers {
		c()
	}
}

// open decompresses a file, by the marks that its bytes begin with; layers
// names what it found, the innermost first. Where there is no mark, the
// Content-Encoding and then the name may say deflate or brotli.
func open(f File) (s *stream, layers []string, err error) {
	s = &stream{Reader: bufio.NewReaderSize(io.NewSectionReader(f.Data, 0, f.Size), 64<<10)}
	for range maxLayers {
		head, err := s.Peek(10)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, fmt.Errorf("decompress: %w", err)
		}
		name := compression(head)
		if name == "" {
			break
		}
		if err := s.push(name, f.limit()); err != nil {
			return nil, nil, err
		}
		layers = append([]string{name}, layers...)
	}
	if len(layers) == 0 {
		if name := unmarked(f, s.Reader); name != "" {
			if err := s.push(name, f.limit()); err != nil {
				return nil, nil, err
			}
			layers = []string{name}
		}
	}
	return s, layers, s.plain()
}

// compression names what begins with such bytes; empty: none that has a mark.
func compression(head []byte) string {
	for _, c := range []struct{ mark, name string }{
		{"\x1f\x8b", "gzip"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"BZh", "bzip2"}, {"\xff\x06\x00\x00sNaPpY", "snappy"},
		{"\xfd7zXZ\x00", "xz"}, {"\x04\x22\x4d\x18", "lz4"}, {"PK\x03\x04", "zip"},
	} {
		if bytes.HasPrefix(head, []byte(c.mark)) {
			return c.name
		}
	}
	return ""
}

// unmarked tells deflate and brotli, which have no mark: somebody has to say
// so, and what is text already was decompressed on the way.
func unmarked(f File, in *bufio.Reader) string {
	said, name := strings.ToLower(strings.TrimSpace(f.Encoding)), ""
	switch {
	case said == "deflate":
		name = "deflate"
	case said == "br" || strings.HasSuffix(strings.ToLower(f.Key), ".br"):
		name = "brotli"
	}
	head, _ := in.Peek(peekBytes)
	if _, err := textFormat(head, "x.json"); err == nil && isText(head) && !(name == "brotli" && isBrotli(head)) {
		return ""
	}
	return name
}

// isBrotli tells whether bytes are a whole stream of brotli that has a short text as it is, with a few bytes around it.
func isBrotli(b []byte) bool {
	limit := int64(len(b))
	n, err := io.Copy(io.Discard, io.LimitReader(brotli.NewReader(bytes.NewReader(b)), limit))
	return err == nil && n > 0 && n < limit
}

// isText reports whether bytes are mostly what text consists of, and none is zero.
func isText(head []byte) bool {
	if bytes.IndexByte(head, 0) >= 0 {
		return false
	}
	odd := 0
	for _, c := range head {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c >= 0x80 {
			odd++
		}
	}
	return odd*4 <= len(head)
}

// push puts a decompressor over what is read so far. limit bounds its output, in bytes.
func (s *stream) push(name string, limit int64) error {
	var out io.Reader
	var err error
	switch name {
	case "gzip":
		out, err = newGzip(s.Reader)
	case "zstd":
		var z *zstd.Decoder
		largest := uint64(window)
		if len(s.closers) > 0 {
			largest = innerWindow
		}
		if z, err = zstd.NewReader(s.Reader, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(largest)); err == nil {
			s.closers = append(s.closers, z.Close)
			out = z
		}
	case "bzip2":
		out = bzip2.NewReader(s.Reader)
	case "snappy":
		out = s2.NewReader(s.Reader)
	case "deflate":
		out, err = zlib.NewReader(s.Reader)
	case "brotli":
		out = brotli.NewReader(s.Reader)
	default:
		return wrongFormat("unsupported_compression", "it is compressed by %s; store it plain, or compressed by gzip or zstd",
			name)
	}
	if err != nil {
		return fmt.Errorf("decompress %s: %w", name, err)
	}
	s.Reader = bufio.NewReaderSize(&bounded{out, limit, limit}, 64<<10)
	return nil
}

// plain decodes UTF-16, which its byte order mark tells, to UTF-8.
func (s *stream) plain() error {
	head, err := s.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("decompress: %w", err)
	}
	if (bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff"))) &&
		!bytes.HasPrefix(head, []byte("\xff\xff")) {
		s.Reader = bufio.NewReaderSize(unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewDecoder().Reader(s.Reader),
			64<<10)
	}
	return nil
}

// gzipReader reads gzip members one after the other. Zeros behind the last
// are padding, as tapes and block devices leave it, and no damage.
type gzipReader struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func newGzip(in *bufio.Reader) (*gzipReader, error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &gzipReader{in, z}, nil
}

func (g *gzipReader) Read(p []byte) (int, error) {
	for {
		n, err := g.z.Read(p)
		if !errors.Is(err, io.EOF) || n > 0 {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return n, err
		}
		if err := g.member(); err != nil {
			return 0, err
		}
	}
}

// member goes on to the next one; io.EOF: there is none.
func (g *gzipReader) member() error {
	for {
		c, err := g.in.ReadByte()
		if err != nil {
			return err
		}
		if c == 0 {
			continue
		}
		g.in.UnreadByte()
		if err := g.z.Reset(g.in); err != nil {
			return errors.Join(errors.New("behind the compressed data stands something that is no gzip"), err)
		}
		g.z.Multistream(false)
		return nil
	}
}
