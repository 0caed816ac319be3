// Package console is the operators' web pages on the admin listener. They show and start the operations of package
// operate, and decide nothing themselves. html/template makes them from files in the binary, with our own style sheet
// and script. There is no build step, and nothing is loaded from other servers.
package console

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/version"
)

//go:embed templates/*.html assets/*
var files embed.FS

// Console serves the pages.
type Console struct {
	operator  *operate.Operator
	access    *operate.Access
	log       *slog.Logger
	templates *template.Template
	sessions  sessions
	tasks     tasks
	now       cached[*overview]
	hour      cached[[]spark]
	broken    cached[uint64] // interrupted tasks
	began     time.Time      // of this process
}

// New returns a console for holders of a token.
func New(o *operate.Operator, access *operate.Access, log *slog.Logger) *Console {
	c := &Console{operator: o, access: access, log: log, began: time.Now(),
		templates: template.Must(template.New("").Option("missingkey=zero").Funcs(functions()).
			ParseFS(files, "templates/*.html"))}
	c.sessions.all = map[string]*session{}
	return c
}

// root is the path of all pages.
const root = "/console"

// Handler serves the pages below /console/.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+root+"/assets/{file}", http.StripPrefix(root, http.FileServerFS(files)))
	mux.HandleFunc("GET "+root+"/login", c.loginPage)
	mux.HandleFunc("POST "+root+"/login", c.login)
	mux.HandleFunc("POST "+root+"/logout", c.signed(c.logout))
	mux.HandleFunc("GET "+root+"/{$}", c.signed(c.page("now")))
	for _, name := range []string{"live", "errors", "error", "objects", "object", "letters", "projects", "verify", "audit",
		"task", "tasks"} {
		mux.HandleFunc("GET "+root+"/"+name, c.signed(c.page(name)))
	}
	for name, part := range c.parts() {
		mux.HandleFunc("GET "+root+"/part/"+name, c.signed(c.part(name, part)))
	}
	mux.HandleFunc("GET "+root+"/events", c.signed(c.events))
	mux.HandleFunc("POST "+root+"/run/{operation}", c.signed(c.run))
	mux.HandleFunc("POST "+root+"/cancel", c.signed(c.cancel))
	mux.HandleFunc(root+"/", c.signed(func(w http.ResponseWriter, r *http.Request, s *session) {
		c.fail(w, r, s, http.StatusNotFound, "There is no such page.")
	}))
	return headers(mux)
}

// headers prevent other sites from framing, reading or scripting a page.
func headers(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set := w.Header().Set
		set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		set("X-Frame-Options", "DENY")
		set("X-Content-Type-Options", "nosniff")
		set("Referrer-Policy", "same-origin")
		set("Cross-Origin-Opener-Policy", "same-origin")
		set("Cross-Origin-Resource-Policy", "same-origin")
		set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

// view is the data of every page.
type view struct {
	Page, Title string
	Who, Role   string
	CSRF        string
	Version     string
	Query       template.URL // of the page, passed on to its part
	Form        map[string]string
	Data        any
}

// navigation is a link to a page.
type navigation struct {
	Path, Text string
	Current    bool
}

// Operator reports whether the page may offer changes.
func (v view) Operator() bool { return v.Role == operate.RoleOperator }

// titles are the titles of all pages.
var titles = map[string]string{"now": "Now", "live": "Live events", "errors": "Errors", "error": "Failure record",
	"objects": "Objects", "object": "Object", "letters": "Dead letters", "projects": "Projects", "verify": "Verify",
	"audit": "Audit", "task": "Task", "tasks": "Tasks", "confirm": "Confirm", "made": "Key", "fail": "Error"}

func newView(r *http.Request, s *session, page string) view {
	v := view{Page: page, Title: titles[page], Version: version.Current().Version, Form: map[string]string{}}
	if s != nil {
		v.Who, v.Role, v.CSRF = s.id.Name, s.id.Role, s.csrf
	}
	query := r.URL.Query()
	for name := range query {
		v.Form[name] = query.Get(name)
	}
	v.Query = template.URL(query.Encode()) // #nosec G203 -- it is encoded
	return v
}

// render writes a whole page or none.
func (c *Console) render(w http.ResponseWriter, status int, name string, v view) {
	var b bytes.Buffer
	if err := c.templates.ExecuteTemplate(&b, name+".html", v); err != nil {
		c.log.Error("console page cannot be written", "page", name, "error", err)
		http.Error(w, "the page cannot be written; see the log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// page serves the frame of a page. The script loads slow content as a part.
func (c *Console) page(name string) func(http.ResponseWriter, *http.Request, *session) {
	return func(w http.ResponseWriter, r *http.Request, s *session) {
		c.render(w, http.StatusOK, name, newView(r, s, name))
	}
}

// partWait is the timeout of a part.
const partWait = 20 * time.Second

// part serves a part of a page. An error is shown in its place.
func (c *Console) part(name string, load func(*http.Request) (any, error)) func(http.ResponseWriter, *http.Request,
	*session) {
	return func(w http.ResponseWriter, r *http.Request, s *session) {
		ctx, cancel := context.WithTimeout(r.Context(), partWait)
		defer cancel()
		v := newView(r, s, name)
		data, err := load(r.WithContext(ctx))
		if err != nil {
			v.Data = c.explain(err)
			c.render(w, http.StatusOK, "part-error", v)
			return
		}
		v.Data = data
		c.render(w, http.StatusOK, "part-"+name, v)
	}
}

// fail serves an error page.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, s *session, status int, message string) {
	v := newView(r, s, "fail")
	v.Data = message
	c.render(w, status, "fail", v)
}

// cached shares a value between several viewers for a short time.
type cached[T any] struct {
	mu   sync.Mutex
	at   time.Time
	what T
	err  error
}

func (c *cached[T]) get(life time.Duration, load func(before T, at time.Time) (T, error)) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) > life {
		c.what, c.err = load(c.what, c.at)
		c.at = time.Now()
	}
	return c.what, c.err
}

// functions are the templates' functions.
func functions() template.FuncMap {
	return template.FuncMap{
		"bytes": bytesText, "count": countText, "time": timeText, "ago": agoText, "text": payloadText,
		"query": queryText, "short": shortText, "indent": indentText, "op": operationPath, "act": newAct,
		"expiry": expiryText,
		"place":  func(where string) string { return path.Base(where) },
		"stages": func() []string { return []string{"receiver", "batcher", "loader"} },
		"states": func() []string { return []string{"new", "loading", "failed", "dead", "dropped", "loaded"} },
		"sorts":  func() []string { return []string{"time", "size", "state"} },
		"link": func(v view, page, path, text string) navigation {
			return navigation{path, text, v.Page == page || v.Page == "error" && page == "errors" || v.Page == "object" &&
				page == "objects" || v.Page == "task" && page == "tasks"}
		},
		"share": func(a, b int64) string {
			if b == 0 {
				return "0 %"
			}
			return fmt.Sprintf("%.0f %%", 100*float64(a)/float64(b))
		},
	}
}
