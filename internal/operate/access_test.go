package operate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// adminTokens returns "viewer" and "operator".
func adminTokens() []config.AdminToken {
	hash := func(token string) string {
		sum := sha256.Sum256([]byte(token))
		return hex.EncodeToString(sum[:])
	}
	return []config.AdminToken{{Name: "wall", Role: RoleViewer, SHA256: hash("viewer")},
		{Name: "ann", Role: RoleOperator, SHA256: hash("operator")}}
}

// An address may send ten wrong tokens, then one every ten seconds. Other addresses are not affected.
func TestGuessingIsLimited(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a := NewAccess(func() string { return "secret" }, adminTokens())
		status := func(address, token string) int {
			_, err := a.Check(address, token)
			if denied, ok := errors.AsType[*DeniedError](err); ok {
				return denied.Status
			}
			return http.StatusOK
		}
		for i := range 10 {
			if got := status("10.0.0.1:5", "wrong"); got != http.StatusUnauthorized {
				t.Fatalf("guess %d: %d", i, got)
			}
		}
		for _, tt := range []struct {
			address, token string
			want           int
		}{
			{"10.0.0.1:6", "wrong", http.StatusTooManyRequests},
			{"10.0.0.1:6", "secret", http.StatusTooManyRequests}, // otherwise the answer would confirm a guess
			{"10.0.0.1:6", "", http.StatusUnauthorized},
			{"10.0.0.2:5", "secret", http.StatusOK},
			{"[2001:db8::1]:5", "operator", http.StatusOK},
		} {
			if got := status(tt.address, tt.token); got != tt.want {
				t.Errorf("%s with %q: %d, want %d", tt.address, tt.token, got, tt.want)
			}
		}
		time.Sleep(11 * time.Second)
		if got := status("10.0.0.1:6", "secret"); got != http.StatusOK {
			t.Errorf("after a while: %d", got)
		}
		for range 11 {
			status("[2001:db8::1]:5", "wrong")
		}
		if got := status("[2001:db8::2]:5", "operator"); got != http.StatusTooManyRequests {
			t.Errorf("a neighbour in the same /64: %d", got)
		}
	})
}

// Memory stays bounded for many addresses.
func TestGuessersAreBounded(t *testing.T) {
	a := NewAccess(func() string { return "secret" }, nil)
	for i := range maxGuessers + 1000 {
		a.Check(fmt.Sprintf("10.%d.%d.%d:5", i>>16, i>>8&255, i&255), "wrong")
	}
	if n := len(a.guesses); n > maxGuessers+1 {
		t.Errorf("%d addresses are remembered", n)
	}
}
