package tenant

import (
	"crypto/sha256"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Key lets a client send events of one project. Only its hash is kept. The
// secret that some clients sign with must be known as it is.
type Key struct {
	Project       string
	Name          string              // for operators; empty: none
	Hash          [32]byte            // HashKey of the key
	Secret        string              // of signatures; empty: none can be checked
	MinDurability pipeline.Durability // requests may not go below it
	ReadOnly      bool                // the key lacks the scope "write"
	Small         bool                // bodies are limited to receiver.small_body
	Expires       time.Time           // from then on the key is rejected; zero: never
}

// HashKey is the SHA-256 of a key. A key is random, so no salt is needed.
func HashKey(key string) [32]byte { return sha256.Sum256([]byte(key)) }

// Expired reports whether the key is rejected at a time, in ms.
func (k *Key) Expired(now int64) bool {
	return !k.Expires.IsZero() && now >= k.Expires.UnixMilli()
}
