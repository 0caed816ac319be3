package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/show"
)

// parts are the parts that pages load. Each reads through operations.
func (c *Console) parts() map[string]func(*http.Request) (any, error) {
	return map[string]func(*http.Request) (any, error){
		"now": c.nowPart, "errors": c.errorsPart, "record": c.errorPart, "objects": c.objectsPart, "object": c.objectPart,
		"find": c.findPart, "letters": c.lettersPart, "projects": c.projectsPart, "audit": c.auditPart,
		"task": c.taskPart, "tasks": c.tasksPart, "verify": c.verifyPart,
	}
}

// list runs a reading operation with a form's parameters, and returns its items. Items before an error are returned
// with it.
func (c *Console) list(r *http.Request, name string, form url.Values) (all []any, err error) {
	err = c.each(r, name, form, func(item any) error {
		all = append(all, item)
		return nil
	})
	return all, err
}

// each calls yield with each item of an operation.
func (c *Console) each(r *http.Request, name string, form url.Values, yield func(item any) error) error {
	op := operate.Find(name)
	params, err := op.Params(form)
	if err != nil {
		return err
	}
	return op.Each(r.Context(), c.operator, params, yield)
}

// only returns the named values of a query.
func only(q url.Values, names ...string) url.Values {
	out := url.Values{}
	for _, n := range names {
		if v := q.Get(n); v != "" {
			out.Set(n, v)
		}
	}
	return out
}

// field returns a field of an item, whose type is private to package operate.
func field(item any, name string) reflect.Value {
	return reflect.ValueOf(item).Elem().FieldByName(name)
}

// errorFilters are the fields of the form that selects failure records.
var errorFilters = []string{"since", "until", "code", "project", "stage", "release", "text", "pending"}

func (c *Console) errorsPart(r *http.Request) (any, error) {
	form := only(r.URL.Query(), errorFilters...)
	counts := url.Values{"limit": {"50"}}
	list := url.Values{"limit": {"100"}}
	for name, v := range form {
		counts[name], list[name] = v, v
	}
	groups, err := c.list(r, "errors count", counts)
	if err != nil {
		return nil, err
	}
	records, err := c.list(r, "errors list", list)
	return struct {
		Groups, Records []any
		Filter          map[string]string
		Chosen          bool
	}{groups, records, flat(form), len(only(form, "code", "project", "stage", "release", "text")) > 0}, err
}

func flat(form url.Values) map[string]string {
	out := map[string]string{}
	for name := range form {
		out[name] = form.Get(name)
	}
	return out
}

func (c *Console) errorPart(r *http.Request) (any, error) {
	all, err := c.list(r, "errors show", url.Values{"id": {r.URL.Query().Get("id")}})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, failure{Title: "There is no such failure record.",
			Next: "It may have expired. The page Errors lists all."}
	}
	return all[0], nil
}

func (c *Console) objectsPart(r *http.Request) (any, error) {
	q := r.URL.Query()
	form := only(q, "since", "until", "pipeline", "state")
	form.Set("limit", "1000")
	all, err := c.list(r, "objects list", form)
	by := q.Get("sort")
	slices.SortStableFunc(all, func(a, b any) int {
		switch by {
		case "size":
			return int(field(b, "Bytes").Int() - field(a, "Bytes").Int())
		case "state":
			return strings.Compare(field(a, "State").String(), field(b, "State").String())
		}
		return field(b, "Stored").Interface().(time.Time).Compare(field(a, "Stored").Interface().(time.Time))
	})
	form.Del("limit")
	return struct {
		Objects []any
		Filter  map[string]string
		Full    bool
	}{all, flat(form), len(all) == 1000}, err
}

func (c *Console) objectPart(r *http.Request) (any, error) {
	key := r.URL.Query().Get("key")
	data := struct {
		Key    string
		Events []string
		Full   bool
		Error  *failure // why it cannot be read completely
	}{Key: key}
	err := c.each(r, "objects show", url.Values{"key": {key}, "limit": {"50"}}, func(e any) error {
		// The next event overwrites the bytes of this one.
		data.Events = append(data.Events, string(reflect.ValueOf(e).Elem().Bytes()))
		return nil
	})
	if err != nil {
		f := c.explain(err)
		data.Error = &f
	}
	data.Full = len(data.Events) == 50
	return data, nil
}

func (c *Console) findPart(r *http.Request) (any, error) {
	q := r.URL.Query()
	if q.Get("what") == "" {
		return nil, nil
	}
	form := only(q, "project", "scan")
	form["what"] = strings.Fields(q.Get("what"))
	found, err := c.list(r, "objects find", form)
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (c *Console) lettersPart(r *http.Request) (any, error) {
	letters, err := c.list(r, "dlq show", url.Values{"all": {"true"}})
	if err != nil {
		return nil, err
	}
	failing, err := c.list(r, "dlq list", url.Values{"failing": {"true"}})
	return struct{ Letters, Failing []any }{letters, failing}, err
}

func (c *Console) projectsPart(r *http.Request) (any, error) {
	all, err := c.list(r, "projects", url.Values{})
	problem := ""
	if err != nil {
		if len(all) == 0 {
			return nil, err
		}
		problem = err.Error()
	}
	keys, err := c.list(r, "keys list", url.Values{})
	if err != nil {
		return nil, err
	}
	byProject := map[string][]any{}
	for _, k := range keys {
		name := field(k, "Project").String()
		byProject[name] = append(byProject[name], k)
	}
	type project struct {
		Name string
		Info any
		Keys []any
	}
	var projects []project
	for _, p := range all {
		name := field(p, "Project").String()
		projects = append(projects, project{name, p, byProject[name]})
		delete(byProject, name)
	}
	for name, keys := range byProject { // those in receiver.keys
		projects = append(projects, project{Name: name, Keys: keys})
	}
	slices.SortFunc(projects, func(a, b project) int { return strings.Compare(a.Name, b.Name) })
	return struct {
		Projects []project
		Problem  string
		File     string // of the configuration; empty: none
	}{projects, problem, c.operator.Config.Receiver.Projects}, nil
}

func (c *Console) auditPart(r *http.Request) (any, error) {
	return c.list(r, "audit", only(r.URL.Query(), "since", "who", "operation"))
}

func (c *Console) taskPart(r *http.Request) (any, error) {
	t := c.task(r.URL.Query().Get("id"))
	if t == nil {
		return nil, failure{Title: "This process has no such task.",
			Next: "It may have started again since. The page Tasks shows what was interrupted."}
	}
	return t.snapshot(), nil
}

func (c *Console) tasksPart(r *http.Request) (any, error) {
	data := struct {
		Tasks   []snapshot
		Past    []past
		Problem *failure // why earlier tasks are not shown
	}{Tasks: c.snapshots("")}
	var err error
	if data.Past, err = c.history(r); err != nil {
		f := c.explain(err)
		data.Problem = &f
	}
	return data, nil
}

func (c *Console) verifyPart(r *http.Request) (any, error) {
	data := struct {
		Running []snapshot
		Failed  *snapshot // the newest run, if it found no result
		Results []any
		Problem *failure // why the last result is not shown
	}{}
	for i, s := range c.snapshots("verify") {
		switch {
		case s.Running:
			data.Running = append(data.Running, s)
		case i == 0 && s.Error != "" && s.Output == "":
			data.Failed = &s
		}
	}
	results, err := c.list(r, "verify", url.Values{"last": {"true"}})
	data.Results = results
	if err != nil && len(results) == 0 && !operate.NotVerified(err) {
		f := c.explain(err)
		data.Problem = &f
	}
	return data, nil
}

// Functions for text in templates.

func bytesText(n any) string { return show.Bytes(number(n)) }

func number(n any) int64 {
	if v := reflect.ValueOf(n); v.CanUint() {
		return int64(v.Uint())
	} else if v.CanInt() {
		return v.Int()
	} else if v.CanFloat() {
		return int64(v.Float())
	}
	return 0
}

// countText formats a number with spaces between groups of three digits.
func countText(n any) string {
	text := fmt.Sprint(number(n))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

func timeText(t any) string {
	switch t := t.(type) {
	case time.Time:
		if t.IsZero() {
			return "–"
		}
		return t.UTC().Format("2006-01-02 15:04:05")
	case *time.Time:
		if t != nil {
			return timeText(*t)
		}
	}
	return "–"
}

// expiryText returns a time of a configuration like all others.
func expiryText(text string) string {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return timeText(t)
	}
	return text
}

func agoText(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "–"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// payloadText returns a payload as text. If it is not text, it is quoted.
func payloadText(b []byte) string {
	if utf8.Valid(b) && !slices.Contains(b, 0) {
		return string(b)
	}
	return fmt.Sprintf("%q", b)
}

// indentText shows JSON with a line for each member.
func indentText(text json.RawMessage) string {
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return payloadText(text)
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if enc.Encode(v) != nil {
		return payloadText(text)
	}
	return strings.TrimSpace(out.String())
}

// shortText shortens a text for a table cell.
func shortText(text string) string {
	runes := []rune(text)
	if len(runes) > 160 {
		return string(runes[:160]) + "…"
	}
	return text
}

// queryText returns a query from names and values.
func queryText(pairs ...string) template.URL {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return template.URL(q.Encode()) // #nosec G203 -- it is encoded
}
