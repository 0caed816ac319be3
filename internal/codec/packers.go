package codec

import "github.com/klauspost/compress/zstd"

// packers are an encoder's compressors. Each allocates its window at first use.
type packers struct {
	quick, slow *zstd.Encoder
	level       zstd.EncoderLevel // of slow
}

// Windows in bytes. Pages of numbers have no long repetitions, those of documents have.
const (
	quickWindow = 256 << 10
	slowWindow  = pageBytes
)

func (p *packers) fast() *zstd.Encoder {
	return opened(&p.quick, zstd.SpeedFastest, quickWindow)
}

func (p *packers) better() *zstd.Encoder { return opened(&p.slow, p.level, slowWindow) }

// choose chooses the level of texts and documents. Of small events they are a small part, so it may cost more.
func (p *packers) choose(small bool) {
	level := zstd.SpeedDefault
	if small {
		level = zstd.SpeedBetterCompression
	}
	if p.level != level {
		p.level, p.slow = level, nil
	}
}

func opened(z **zstd.Encoder, level zstd.EncoderLevel, window int) *zstd.Encoder {
	if *z == nil {
		var err error
		if *z, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(level),
			zstd.WithWindowSize(window), zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false),
			zstd.WithLowerEncoderMem(true),
			// Indexes of dictionaries rarely have repetitions, but some indexes are more frequent than others.
			zstd.WithAllLitEntropyCompression(true)); err != nil {
			panic(err) // cannot happen: the options are constants
		}
	}
	return *z
}
