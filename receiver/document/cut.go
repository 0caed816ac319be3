package document

import (
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// cut is a value that leaves the row.
type cut struct {
	piece int
	jsonscan.Span
}

// plan decides which values leave the row: strings above the threshold, and arrays and objects that exceed it even
// without the large values in them. If the row is still too large, it decides again with a smaller threshold. It
// returns how many bytes are left, including the references.
func (w *Writer) plan(members, envelope []piece, threshold int) (left, used int) {
	for ; ; threshold /= 8 {
		w.cuts = w.cuts[:0]
		left = len(`{}`)
		for i := range members {
			left += w.planPiece(&members[i], i, threshold)
		}
		for i := range envelope {
			left += w.planPiece(&envelope[i], len(members)+i, threshold)
		}
		if left <= MaxRow || threshold <= minThreshold {
			return left, threshold
		}
	}
}

func (w *Writer) planPiece(p *piece, index, threshold int) (left int) {
	if p.blob != nil {
		return len(p.blob.key) + len(`"":,`) + len(pipeline.BlobHole) + blobRoom
	}
	start, end := int(p.start), int(p.end)
	if size := end - start; threshold == 0 || size <= threshold || len(p.large) == 0 {
		return size + 1
	}
	if p.object {
		start++ // the object itself stays
	}
	at, _ := slices.BinarySearchFunc(p.large, start, func(l jsonscan.Span, start int) int { return int(l.Start) - start })
	c := planner{w: w, large: p.large[at:], piece: index, text: p.text, threshold: threshold}
	return c.left(start, end) + 1
}

// planner visits the large values of a piece.
type planner struct {
	w         *Writer
	large     []jsonscan.Span // that lie ahead
	piece     int
	text      []byte
	threshold int
}

// left is how many bytes of a part of the text remain without its large values.
func (c *planner) left(start, end int) int {
	left := end - start
	for len(c.large) > 0 && int(c.large[0].Start) < end {
		l := c.large[0]
		c.large = c.large[1:]
		size := int(l.End - l.Start)
		if size <= c.threshold {
			continue
		}
		whole := true
		if c.text[l.Start] != '"' {
			cuts := len(c.w.cuts)
			inner := c.left(int(l.Start), int(l.End))
			if whole = inner > c.threshold; whole {
				c.w.cuts = c.w.cuts[:cuts]
			} else {
				left -= size - inner
			}
		}
		if whole {
			c.w.cuts = append(c.w.cuts, cut{c.piece, l})
			left -= size - len(pipeline.BlobHole) - blobRoom
		}
	}
	return left
}
