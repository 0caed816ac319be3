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

// Format is the format of a file after decompression.
type Format uint8

// The formats.
const (
	JSON    Format = iota // consecutive values, or arrays of them
	CSV                   // with a header
	TSV                   // with a header, escaped by backslashes as ClickHouse, MySQL and PostgreSQL write it
	Parquet               // ClickHouse decodes this and all below
	ORC
	Avro
	Arrow
	ArrowStream
)

var formatNames = [...]string{"JSON", "CSV", "TSV", "Parquet", "ORC", "Avro", "Arrow", "ArrowStream"}

// String returns ClickHouse's name of the format. This package reads CSV and TSV itself.
func (f Format) String() string { return formatNames[f] }

// ByServer reports whether ClickHouse has to decode the format.
func (f Format) ByServer() bool { return f >= Parquet }

// File is a foreign object on disk.
type File struct {
	Data     io.ReaderAt
	Size     int64  // bytes
	Key      string // the name decides between CSV and TSV, and finds compression without a magic number
	Encoding string // Content-Encoding in the store; empty: none
	Text     int64  // decompressed size in bytes, if known; 0: bounded by MaxText and the size
}

// MaxText bounds a file's decompressed size, in bytes. A loader reads that in a few minutes.
const MaxText = 64 << 30

// Any file may decompress to smallText bytes, and beyond that to maxRatio times its size. Only files made to keep
// loaders busy exceed that: 346 bytes of zstd within zstd are 100 GiB.
const (
	smallText = 1 << 30
	maxRatio  = 10_000
)

// limit is the largest size that the file may have after decompression, in bytes.
func (f File) limit() int64 {
	if f.Text > 0 {
		return f.Text
	}
	if f.Size > MaxText/maxRatio {
		return MaxText
	}
	return max(smallText, maxRatio*f.Size)
}

// bounded fails after left bytes.
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

// wrongFormat returns the error of a file that must be stored in another form to be read.
func wrongFormat(code, format string, args ...any) error {
	return &pipeline.FileError{Code: code, Final: true, Err: fmt.Errorf(format, args...)}
}

// maxLayers bounds how often a file may be compressed. Two layers occur: a proxy compresses a .gz file once more.
const maxLayers = 3

// peekBytes is how much of a text decides its format, in bytes.
const peekBytes = 4 << 10

// window and innerWindow bound the window of a zstd stream, in bytes. The outermost stream may use what `zstd --long`
// writes; inner ones only a usual window.
const (
	window      = 128 << 20
	innerWindow = 8 << 20
)

// Detect finds a file's format: by its bytes first, by its name last.
func Detect(f File) (Format, error) {
	if f.Size == 0 {
		return JSON, nil // an empty file has no rows
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

// container detects formats with a magic number.
func container(head []byte) (Format, bool) {
	for _, c := range []struct {
		mark   string
		format Format
	}{
		{"PAR1", Parquet}, {"ORC", ORC}, {"Obj\x01", Avro}, {"ARROW1\x00\x00", Arrow},
		{"\xff\xff\xff\xff", ArrowStream}, // continuation marker before the schema
	} {
		if bytes.HasPrefix(head, []byte(c.mark)) && !isText(head) { // a table may begin with a column named ORCID
			return c.format, true
		}
	}
	return 0, false
}

// textFormat detects JSON by how the text begins, and tables by the file's name. Lines that are not JSON count as JSON
// only if the name says so.
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
		return JSON, nil // lines that are not JSON are rejected
	}
	return 0, wrongFormat("unknown_format",
		"it begins with %.40q, which is no JSON, and its name ends in none of .csv, .tsv, .tab, .json, .ndjson, .jsonl", text)
}

// plainName is a key's last part without endings for compression.
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

// stream reads a text through its decompressors.
type stream struct {
	*bufio.Reader
	closers []func()
}

func (s *stream) Close() {
	for _, c := range s.closers {
		c()
	}
}

// open decompresses a file by magic numbers. layers names the compressions, innermost first. Without a magic number,
// the Content-Encoding and then the name may say deflate or brotli.
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

// compression names the compression by its magic number; empty: none.
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

// unmarked finds deflate and brotli, which have no magic number. The Content-Encoding or the name must say so. Bytes
// that already are text were decompressed on the way.
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

// isBrotli reports whether bytes are a whole brotli stream that stores a short text uncompressed, with a few bytes
// around it.
func isBrotli(b []byte) bool {
	limit := int64(len(b))
	n, err := io.Copy(io.Discard, io.LimitReader(brotli.NewReader(bytes.NewReader(b)), limit))
	return err == nil && n > 0 && n < limit
}

// isText reports whether the bytes look like text: mostly text characters and no zero.
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

// push adds a decompressor on top. limit bounds its output, in bytes.
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

// plain decodes UTF-16 with a byte order mark to UTF-8.
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

// gzipReader reads consecutive gzip members. Zeros after the last one are padding from tapes and block devices, not
// damage.
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

// member begins the next member; io.EOF: there is none.
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
