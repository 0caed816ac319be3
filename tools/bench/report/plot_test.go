package report

import (
	"bytes"
	"image/color"
	"image/png"
	"testing"
)

func e2eReport(rates ...int) Report {
	r := Report{Machine: Machine{Cores: 2, CPU: "some CPU", Kernel: "6.1", FileSystem: "ext4"}}
	for _, rate := range rates {
		var f Figures
		f.Add("accepted_per_s", float64(rate))
		for i, c := range curves {
			f.Add(c.part+"_cores", float64(rate)/100_000/float64(i+1))
		}
		r.Runs = append(r.Runs, Run{What: "e2e", Rate: rate, Figures: f})
	}
	r.Summarize()
	return r
}

// The picture decodes, is not blank, and has a line of every colour.
func TestPlot(t *testing.T) {
	for _, rates := range [][]int{{1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000}, {5000}} {
		text, err := Plot(e2eReport(rates...))
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if b := img.Bounds(); b.Dx() < 800 || b.Dy() < 500 {
			t.Errorf("%d rates: the picture is %v", len(rates), b)
		}
		seen := map[color.RGBA]int{}
		for y := range img.Bounds().Dy() {
			for x := range img.Bounds().Dx() {
				seen[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
			}
		}
		for _, c := range curves {
			if seen[c.colour] < 20 {
				t.Errorf("%d rates: %d pixels are of %s's colour", len(rates), seen[c.colour], c.label)
			}
		}
	}
	if _, err := Plot(Report{}); err == nil {
		t.Error("a report without a run of e2e can be drawn")
	}
}
