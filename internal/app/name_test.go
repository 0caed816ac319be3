package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
)

// A receiver keeps the name that it made, so that its next run writes under the same.
func TestReceiverName(t *testing.T) {
	cfg := config.Default()
	cfg.Batcher.Dir = filepath.Join(t.TempDir(), "wal")
	first, err := receiverName(cfg)
	if err != nil || pipeline.ValidReceiver(first) != nil {
		t.Fatalf("%q, %v", first, err)
	}
	again, err := receiverName(cfg)
	if err != nil || again != first {
		t.Errorf("%q, then %q, %v", first, again, err)
	}
	other := cfg
	other.Batcher.Dir = t.TempDir()
	if name, err := receiverName(other); err != nil || name == first {
		t.Errorf("two folders, one name: %q, %v", name, err)
	}
	cfg.Receiver.Name = "game1"
	if name, err := receiverName(cfg); err != nil || name != "game1" {
		t.Errorf("got %q, %v; want the configured one", name, err)
	}
	path := filepath.Join(other.Batcher.Dir, "receiver-name")
	if err := os.WriteFile(path, []byte("a/b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := receiverName(other); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a name that is none: %v", err)
	}
}

func TestLoaderName(t *testing.T) {
	cfg := config.Default()
	if name := LoaderName(cfg); name == "" || name == "-" {
		t.Errorf("got %q", name)
	}
	if cfg.Loader.Name = "l1"; LoaderName(cfg) != "l1" {
		t.Errorf("got %q, want the configured one", LoaderName(cfg))
	}
}

// Keys of the configuration are what the receiver goes by.
func TestReceiverKeys(t *testing.T) {
	keys, err := receiverKeys(config.Receiver{Keys: []config.Key{
		{Project: "a", SHA256: strings.Repeat("ab", 32), Secret: "s", MinDurability: "object"},
		{Project: "b", SHA256: strings.Repeat("cd", 32)}}})
	if err != nil || len(keys) != 2 || keys[0].Project != "a" || keys[0].Hash[0] != 0xab || keys[0].Secret != "s" ||
		keys[0].MinDurability != pipeline.Bucket || keys[1].MinDurability != pipeline.Memory {
		t.Errorf("got %+v, %v", keys, err)
	}
	_, err = receiverKeys(config.Receiver{Keys: []config.Key{{Project: "a", SHA256: "x"}}})
	if err == nil || !strings.HasPrefix(err.Error(), "receiver.keys[0].sha256: ") {
		t.Errorf("got %v", err)
	}
}
