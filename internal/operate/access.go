package operate

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/tokenbucket"
)

// Roles of a token.
const (
	RoleOperator = "operator" // may do anything
	RoleViewer   = "viewer"   // may read everything, do dry runs, and change nothing
)

// Access decides who may use the operators' API and the console.
type Access struct {
	token  func() string // of the operator "admin"; empty: none
	tokens []config.AdminToken

	mu      sync.Mutex
	guesses map[netip.Prefix]*tokenbucket.Bucket
}

// NewAccess returns the access for the configuration's tokens. token returns the current admin.token.
func NewAccess(token func() string, tokens []config.AdminToken) *Access {
	return &Access{token: token, tokens: tokens, guesses: map[netip.Prefix]*tokenbucket.Bucket{}}
}

// guessRate limits wrong tokens from one address.
var guessRate = tokenbucket.Rate{PerSecond: 1.0 / 10, Burst: 10}

// maxGuessers is the most addresses whose wrong tokens are counted.
const maxGuessers = 10_000

// DeniedError says why access was denied.
type DeniedError struct {
	Status int
	Wait   time.Duration // until the next attempt is allowed
	text   string
}

func (e *DeniedError) Error() string { return e.text }

// Identity is the owner of a valid token.
type Identity struct {
	Name, Role string
	hash       [sha256.Size]byte
}

// Check returns a token's identity. A wrong token counts against the address.
func (a *Access) Check(address, given string) (Identity, error) {
	if a.Off() {
		return Identity{}, &DeniedError{Status: http.StatusForbidden,
			text: "the operators' API is off: set admin.token or admin.token_file"}
	}
	if given == "" { // not a guess
		return Identity{}, errNoToken
	}
	bucket := a.bucket(address)
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait := bucket.Wait(guessRate, 1, time.Now()); wait > 0 {
		return Identity{}, &DeniedError{Status: http.StatusTooManyRequests, Wait: wait, text: fmt.Sprintf(
			"too many wrong tokens came from your address: try again in %s", wait.Round(time.Second)+time.Second)}
	}
	id, ok := a.find(sha256.Sum256([]byte(given)))
	if !ok {
		bucket.Take(1)
		return Identity{}, errNoToken
	}
	return id, nil
}

var errNoToken = &DeniedError{Status: http.StatusUnauthorized,
	text: "send the admin token as Authorization: Bearer TOKEN"}

// Off reports whether no token is configured.
func (a *Access) Off() bool { return a.token() == "" && len(a.tokens) == 0 }

// Valid reports whether an identity's token is still valid.
func (a *Access) Valid(id Identity) bool {
	now, ok := a.find(id.hash)
	return ok && now == id
}

// find compares with all tokens, so that timing reveals nothing.
func (a *Access) find(hash [sha256.Size]byte) (found Identity, ok bool) {
	if token := a.token(); token != "" {
		if own := sha256.Sum256([]byte(token)); subtle.ConstantTimeCompare(own[:], hash[:]) == 1 {
			found, ok = Identity{"admin", RoleOperator, hash}, true
		}
	}
	for _, t := range a.tokens {
		own, _ := config.ParseHash(t.SHA256) // checked when the configuration was read
		if subtle.ConstantTimeCompare(own[:], hash[:]) == 1 {
			found, ok = Identity{t.Name, t.Role, hash}, true
		}
	}
	return found, ok
}

// bucket returns the token bucket for wrong tokens of an address; for IPv6, of its network.
func (a *Access) bucket(address string) *tokenbucket.Bucket {
	a.mu.Lock()
	defer a.mu.Unlock()
	var from netip.Prefix
	if port, err := netip.ParseAddrPort(address); err == nil {
		bits := 32
		if !port.Addr().Unmap().Is4() {
			bits = 64
		}
		from, _ = port.Addr().Unmap().Prefix(bits)
	}
	if a.guesses[from] == nil {
		if len(a.guesses) >= maxGuessers { // drop addresses without recent guesses
			for p, b := range a.guesses {
				if b.Level(guessRate, time.Now()) >= guessRate.Burst {
					delete(a.guesses, p)
				}
			}
		}
		if len(a.guesses) >= maxGuessers {
			from = netip.Prefix{} // all others share one bucket
		}
	}
	if a.guesses[from] == nil {
		a.guesses[from] = &tokenbucket.Bucket{}
	}
	return a.guesses[from]
}

// may rejects operations that a role may not run. Every role may run what changes nothing: reads and dry runs. If
// params are nil, they are not known yet, and an operation that has a dry run passes.
func (id Identity) may(op Operation, params any) error {
	if !op.Changes() || id.Role == RoleOperator {
		return nil
	}
	hint := ""
	if exists, _ := dryRun(op.params); exists {
		if _, on := dryRun(params); on || params == nil {
			return nil
		}
		hint = ", or a dry run"
	}
	return &DeniedError{Status: http.StatusForbidden, text: fmt.Sprintf(
		"the token %s has the role %s, which changes nothing: %q needs a token with the role operator%s", id.Name, id.Role,
		op.Name, hint)}
}

// guard passes requests with a valid token to h, with the identity.
func (a *Access) guard(h func(http.ResponseWriter, *http.Request, Identity)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			given = ""
		}
		id, err := a.Check(r.RemoteAddr, given)
		if err != nil {
			writeDenied(w, err)
			return
		}
		actor := Actor{Name: id.Name, Role: id.Role, Address: r.RemoteAddr, Via: viaAPI}
		h(w, r.WithContext(WithActor(r.Context(), actor)), id)
	}
}

// writeDenied answers with the reason of a denial.
func writeDenied(w http.ResponseWriter, err error) {
	denied, ok := errors.AsType[*DeniedError](err)
	if !ok {
		WriteError(w, http.StatusInternalServerError, err.Error())
		return
	}
	if denied.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="penstock admin"`)
	}
	if denied.Wait > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(denied.Wait.Seconds())+1))
	}
	WriteError(w, denied.Status, denied.Error())
}
