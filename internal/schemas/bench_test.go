package schemas

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func BenchmarkCheck(b *testing.B) {
	dir := b.TempDir()
	schema := `{"required":["level","platform"],"properties":{"level":{"type":"integer","minimum":1},"difficulty":{"enum":["easy","hard"]},"position":{"type":"object","additionalProperties":{"type":"number"}},"items":{"type":"array","items":{"type":"string"}},"version":{"pattern":"^[0-9.]+$"}}}`
	if err := os.WriteFile(filepath.Join(dir, "level.json"), []byte(schema), 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	doc := []byte(
		`{"level":3,"difficulty":"hard","position":{"x":1.5,"y":2.5,"z":-3},"items":["a","b","c"],"platform":"ios","version":"1.2.3","fps":59.9,"online":true}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Find([]byte("level"))(doc); err != nil {
			b.Fatal(err)
		}
	}
}
