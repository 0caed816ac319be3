package document

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// Escapes are never torn at the ends of parts.
func TestWriteUnescaped(t *testing.T) {
	for _, piece := range []string{`a\n`, `\u00e9`, `\ud83d\ude00`, `x\ud83d\ude00`, `xy\ud83d\ude00`, `\\\"`, "é\\t"} {
		text := strings.Repeat(piece, 3*decodePart/len(piece))
		var got bytes.Buffer
		if err := writeUnescaped(&got, []byte(text)); err != nil {
			t.Fatal(err)
		}
		var want string
		if err := json.Unmarshal([]byte(`"`+text+`"`), &want); err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Errorf("%s: something else came out", piece)
		}
	}
}
