package receiver

import (
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"
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
	MinDurability pipeline.Durability // what requests may not go below
	ReadOnly      bool                // it sends nothing now
	Small         bool                // its bodies are held to Options.SmallBody
	Expires       time.Time           // from then on it is good for nothing; zero: never
}

// HashKey is the SHA-256 of a key. A key is random, so no salt is needed.
func HashKey(key string) [32]byte { return sha256.Sum256([]byte(key)) }

// keyOf takes the key from where clients can put one: a header, the user of
// Basic authentication, or the query (beacons set no header).
func keyOf(req *http.Request) (key string, given bool) {
	if auth := req.Header.Get("Authorization"); auth != "" {
		if scheme, token, ok := strings.Cut(auth, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token), true
		}
		if user, _, ok := req.BasicAuth(); ok {
			return user, true
		}
	}
	if key := req.Header.Get("X-API-Key"); key != "" {
		return key, true
	}
	key = queryValue(req.URL.RawQuery, "key")
	return key, key != ""
}

// queryValue is the first value of a query parameter; it parses nothing where
// there is no query.
func queryValue(raw, name string) string {
	if raw == "" {
		return ""
	}
	values, _ := url.ParseQuery(raw)
	return values.Get(name)
}
