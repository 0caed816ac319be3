package console

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/operate"
)

// session is a login. It ends with the process.
type session struct {
	id      operate.Identity
	address string // of the client, for the audit table
	csrf    string // in each form; pages of other origins do not know it
	used    time.Time
}

// Limits of sessions.
const (
	sessionLife = 12 * time.Hour // since the last request
	maxSessions = 1000           // beyond it, the least recently used one ends
)

type sessions struct {
	mu  sync.Mutex
	all map[string]*session
}

func random() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (s *sessions) open(id operate.Identity, address string) (name string, opened *session) {
	opened = &session{id: id, address: address, csrf: random(), used: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxSessions {
		oldest := ""
		for n, other := range s.all {
			if oldest == "" || other.used.Before(s.all[oldest].used) {
				oldest = n
			}
		}
		delete(s.all, oldest)
	}
	name = random()
	s.all[name] = opened
	return name, opened
}

// find returns a copy of a session by its name; nil: none.
func (s *sessions) find(name string, access *operate.Access) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.all[name]
	if found == nil {
		return nil
	}
	// A session also ends when its token is replaced or removed.
	if time.Since(found.used) > sessionLife || !access.Valid(found.id) {
		delete(s.all, name)
		return nil
	}
	found.used = time.Now()
	one := *found
	return &one
}

func (s *sessions) close(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, name)
}

// cookieName differs for each port: a browser sends the cookies of one port of a host to all others.
func cookieName(r *http.Request) string {
	_, port, _ := net.SplitHostPort(r.Host)
	return "penstock_console_" + port
}

func cookie(r *http.Request, value string, age int) *http.Cookie {
	// #nosec G124 -- it is Secure where the listener has TLS; dev has none
	return &http.Cookie{Name: cookieName(r), Value: value, Path: root, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil, MaxAge: age}
}

// session returns a copy of the session of a request; nil: none.
func (c *Console) session(r *http.Request) *session {
	if k, err := r.Cookie(cookieName(r)); err == nil {
		return c.sessions.find(k.Value, c.access)
	}
	return nil
}

// signed admits only logged-in people. A change also needs the token of the session's forms.
func (c *Console) signed(h func(http.ResponseWriter, *http.Request, *session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := c.session(r)
		if s == nil {
			if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Dest") != "empty" {
				http.Redirect(w, r, root+"/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
				return
			}
			http.Error(w, "log in again", http.StatusUnauthorized)
			return
		}
		if r.Method != http.MethodGet {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			if err := r.ParseForm(); err != nil {
				c.fail(w, r, s, http.StatusBadRequest, "The form cannot be read: "+err.Error())
				return
			}
			if subtle.ConstantTimeCompare([]byte(r.PostForm.Get("csrf")), []byte(s.csrf)) != 1 {
				c.fail(w, r, s, http.StatusForbidden, "This form is not one of this session. Load the page again.")
				return
			}
			r.PostForm.Del("csrf")
		}
		actor := operate.Actor{Name: s.id.Name, Role: s.id.Role, Address: r.RemoteAddr, Via: operate.ViaConsole}
		h(w, r.WithContext(operate.WithActor(r.Context(), actor)), s)
	}
}

// maxForm is the largest form, in bytes. One form has an edited payload.
const maxForm = 32 << 20

func (c *Console) loginPage(w http.ResponseWriter, r *http.Request) {
	if c.session(r) != nil { // of another tab
		// #nosec G710 -- it is a page of this console
		http.Redirect(w, r, ownPage(r.URL.Query().Get("next")), http.StatusSeeOther)
		return
	}
	v := newView(r, nil, "login")
	if c.access.Off() {
		v.Data = "The console is off: set admin.token, admin.token_file or admin.tokens, and start this process again."
	}
	c.render(w, http.StatusOK, "login", v)
}

func (c *Console) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	id, err := c.access.Check(r.RemoteAddr, r.PostFormValue("token"))
	if err != nil {
		v, status := newView(r, nil, "login"), http.StatusUnauthorized
		v.Form["next"] = r.PostFormValue("next")
		v.Data = "This is not a token of this console."
		if denied, ok := errors.AsType[*operate.DeniedError](err); ok && denied.Status != http.StatusUnauthorized {
			v.Data, status = denied.Error(), denied.Status
			if denied.Wait > 0 {
				w.Header().Set("Retry-After", fmt.Sprint(int(denied.Wait.Seconds())+1))
			}
		}
		c.render(w, status, "login", v)
		return
	}
	name, _ := c.sessions.open(id, r.RemoteAddr)
	http.SetCookie(w, cookie(r, name, int(sessionLife.Seconds())))
	// #nosec G710 -- it is a page of this console
	http.Redirect(w, r, ownPage(r.PostFormValue("next")), http.StatusSeeOther)
}

// ownPage returns a page of this console: the given one, or else the first.
func ownPage(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(u.Path, root+"/") || strings.Contains(next, "\\") ||
		strings.HasPrefix(u.Path, root+"/login") || strings.HasPrefix(u.Path, root+"/part/") {
		return root + "/"
	}
	return u.String()
}

func (c *Console) logout(w http.ResponseWriter, r *http.Request, _ *session) {
	if k, err := r.Cookie(cookieName(r)); err == nil {
		c.sessions.close(k.Value)
	}
	http.SetCookie(w, cookie(r, "", -1))
	http.Redirect(w, r, root+"/login", http.StatusSeeOther)
}
