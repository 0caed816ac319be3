package jsonscan

import "testing"

func TestExtent(t *testing.T) {
	for _, c := range []struct {
		src  string
		want int
	}{
		{`{}`, 2}, {`{"a":"}\"}"}x`, 12}, {`[[],{}]]`, 7}, {`"a\\"b`, 5}, {`12,3`, 2}, {`12]`, 2}, {"12\n{", 2},
		{`true {`, 4},
		{`{"a":[}`, 0}, {`"a`, 0}, {`"a\"`, 0}, {`"a\`, 0}, {`{`, 0}, {``, 0}, {`12`, 2},
	} {
		if got := Extent([]byte(c.src)); got != c.want {
			t.Errorf("%s: got %d, want %d", c.src, got, c.want)
		}
		if n := c.want; n > 0 { // as the scanner says, where it takes the value
			if _, m, err := new(Scanner).Value([]byte(c.src)); err == nil && m != n {
				t.Errorf("%s: the scanner says %d, want %d", c.src, m, n)
			}
		}
	}
}

func BenchmarkExtent(b *testing.B) {
	for name, text := range map[string][]byte{"game": gameEvents(1)[0], "llm": llmEvent()} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if Extent(text) != len(text) {
					b.Fatal("it ends elsewhere")
				}
			}
		})
	}
}
