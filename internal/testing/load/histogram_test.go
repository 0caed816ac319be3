package load

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var a, b Histogram
	var all []time.Duration
	for i := range 100_001 {
		d := time.Duration(r.ExpFloat64() * float64(time.Duration(1)<<(i%33)))
		all = append(all, d)
		[]*Histogram{&a, &b}[i%2].Record(d)
	}
	a.Add(&b)
	slices.Sort(all)
	if a.Count() != uint64(len(all)) || a.Max() != all[len(all)-1] {
		t.Errorf("count %d, max %s", a.Count(), a.Max())
	}
	for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[max(0, int(float64(len(all))*q+0.999999)-1)]
		if got := a.Quantile(q); got < want || float64(got) > float64(want)*1.008+1 {
			t.Errorf("quantile %v: %s, want %s", q, got, want)
		}
	}
	var none Histogram
	if none.Quantile(0.5) != 0 || none.Max() != 0 {
		t.Error("quantiles of nothing")
	}
}

// Buckets follow each other without a gap, up to the longest duration.
func TestBuckets(t *testing.T) {
	for i := range bucketOf(1<<63-1) - 1 {
		if c := ceiling(i); bucketOf(c) != i || bucketOf(c+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, which is in %d, and the next in %d", i, c, bucketOf(c), bucketOf(c+1))
		}
	}
	if got := bucketOf(1<<63 - 1); got >= buckets {
		t.Errorf("the longest duration is in bucket %d of %d", got, buckets)
	}
	if bucketOf(-1) != 0 {
		t.Error("a negative duration")
	}
}
