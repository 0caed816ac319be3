package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// operation is one thing that an operator does: a subcommand here, a path of
// the admin API there. Both fill the same params and get the same lines.
type operation struct {
	name     string // of the command, in two words: "dlq list"
	method   string // GET: params in the query; POST: as JSON
	path     string
	short    string
	about    string             // in the command's help and in the API's description
	defaults map[string]string  // of params, where they are others than the tags say
	params   any                // a pointer to a zero value of its params, see paramFields
	item     any                // a zero value of what a line holds; nil: any JSON
	header   []string           // of the table that people see; none: see print
	row      func(any) []string // a line of that table; any is a pointer to an item
	print    func(w io.Writer, item any) error
	kind     func(any) string                        // of an item, for sum; nil: all are of one
	sum      func(w io.Writer, items map[string]int) // after the last line, for people: items by kind, "" all of them
	run      func(ctx context.Context, o *operator, params any, out sink) error
	// special is the command where it does more than the operation: asks before it
	// drops, or sends what a filter made of it.
	special func(ctx context.Context, s streams, args []string) error
}

// sink takes what an operation finds, line by line, and how far it has come.
type sink struct {
	item     func(any) error
	progress func(progress)
}

// progress is how far long work has come.
type progress struct {
	Objects      int64   `json:"objects,omitempty"`
	TotalObjects int64   `json:"total_objects,omitempty"`
	Rows         int64   `json:"rows,omitempty"`
	Bytes        int64   `json:"bytes,omitempty"`
	TotalBytes   int64   `json:"total_bytes,omitempty"`
	Seconds      float64 `json:"seconds"`
	Text         string  `json:"text,omitempty"` // what is being waited for
}

func (p progress) String() string {
	var b strings.Builder
	done := 0.0
	if p.TotalBytes > 0 {
		done = float64(p.Bytes) / float64(p.TotalBytes)
		const width = 20
		n := min(int(done*width), width)
		fmt.Fprintf(&b, "[%s%s] ", strings.Repeat("#", n), strings.Repeat(".", width-n))
	}
	switch {
	case p.TotalObjects > 0:
		fmt.Fprintf(&b, "%d of %d objects, %d rows", p.Objects, p.TotalObjects, p.Rows)
	case p.Objects > 0:
		fmt.Fprintf(&b, "%d objects", p.Objects)
	}
	if p.Rows > 0 && p.Seconds > 0 {
		fmt.Fprintf(&b, ", %.0f rows/s", float64(p.Rows)/p.Seconds)
	}
	if done > 0 {
		fmt.Fprintf(&b, ", %s left", time.Duration(p.Seconds/done*(1-done)*float64(time.Second)).Round(time.Second))
	}
	if p.Text != "" {
		fmt.Fprintf(&b, "; %s", p.Text)
	}
	return strings.TrimPrefix(b.String(), "; ")
}

// line is one of an answer: newline-delimited JSON, of which the last says done
// or error.
type line struct {
	Item     any       `json:"item,omitempty"`
	Progress *progress `json:"progress,omitempty"`
	Error    string    `json:"error,omitempty"`
	Done     bool      `json:"done,omitempty"`
}

func operations() []operation {
	var all []operation
	all = append(all, objectOperations()...)
	all = append(all, deadLetterOperations()...)
	all = append(all, errorOperations()...)
	all = append(all, keyOperations()...)
	return append(all, reingestOperation())
}

func findOperation(name string) operation {
	for _, op := range operations() {
		if op.name == name {
			return op
		}
	}
	panic("no operation " + name)
}

// paramField is one field of params, by its tags: `param:"since" usage:"…"
// default:"24h"`. `arg:"KEY"` takes what stands behind the flags: on a string one
// word, on a []string, the last field of its kind, all that are left.
type paramField struct {
	name, usage, def, arg string
	value                 reflect.Value
}

func paramFields(params any) []paramField { return fieldsOf(reflect.ValueOf(params).Elem()) }

func fieldsOf(v reflect.Value) []paramField {
	var all []paramField
	for f := range v.Type().Fields() {
		if f.Anonymous {
			all = append(all, fieldsOf(v.FieldByIndex(f.Index))...)
		}
		if name := f.Tag.Get("param"); name != "" {
			all = append(all, paramField{name, f.Tag.Get("usage"), f.Tag.Get("default"), f.Tag.Get("arg"), v.FieldByIndex(f.Index)})
		}
	}
	return all
}

// set reads a field's text.
func (f paramField) set(text string) error {
	switch f.value.Kind() {
	case reflect.String:
		f.value.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%s: %q is neither true nor false", f.name, text)
		}
		f.value.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%s: %q is not a number", f.name, text)
		}
		f.value.SetInt(int64(n))
	case reflect.Slice: // of texts
		f.value.Set(reflect.Append(f.value, reflect.ValueOf(text)))
	}
	return nil
}

// newParams is a copy of an operation's params with the defaults.
func (op operation) newParams() any {
	p := reflect.New(reflect.TypeOf(op.params).Elem()).Interface()
	for _, f := range paramFields(p) {
		if def, ok := op.defaults[f.name]; ok {
			f.def = def
		}
		if f.def != "" {
			f.set(f.def)
		}
	}
	return p
}

// fromQuery fills params from a query.
func (op operation) fromQuery(q url.Values) (any, error) {
	p := op.newParams()
	fields := map[string]paramField{}
	for _, f := range paramFields(p) {
		fields[f.name] = f
	}
	for name, values := range q {
		f, ok := fields[name]
		if !ok {
			return nil, fmt.Errorf("there is no parameter %q", name)
		}
		for _, v := range values {
			if err := f.set(v); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// fromJSON fills params from a body.
func (op operation) fromJSON(body io.Reader) (any, error) {
	p := op.newParams()
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	err := dec.Decode(p)
	if err == nil && dec.More() {
		err = errors.New("something follows the object")
	}
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("the body is no JSON object of this operation's parameters: %w", err)
	}
	return p, nil
}

// query is the inverse of fromQuery.
func query(params any) url.Values {
	q := url.Values{}
	for _, f := range paramFields(params) {
		switch f.value.Kind() {
		case reflect.Slice:
			for i := range f.value.Len() {
				q.Add(f.name, f.value.Index(i).String())
			}
		default:
			if !f.value.IsZero() || f.def != "" {
				q.Set(f.name, fmt.Sprint(f.value.Interface()))
			}
		}
	}
	return q
}

// handleOperations serves all operations below /v1/, for who has the token.
func handleOperations(mux *http.ServeMux, o *operator, token func() string) {
	for _, op := range operations() {
		mux.HandleFunc(op.method+" "+op.path, guard(token, func(w http.ResponseWriter, r *http.Request) { op.serve(w, r, o) }))
	}
	mux.HandleFunc("GET /v1/blobs/{key...}", guard(token, o.serveBlob))
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, openAPI()) })
}

// guard lets through who has the admin token.
func guard(secret func() string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			given = ""
		}
		token := secret()
		switch {
		case token == "":
			apiError(w, http.StatusForbidden, "the operators' API is off: set admin.token or admin.token_file")
		case subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1:
			w.Header().Set("WWW-Authenticate", `Bearer realm="penstock admin"`)
			apiError(w, http.StatusUnauthorized, "send the admin token as Authorization: Bearer TOKEN")
		default:
			h(w, r)
		}
	}
}

func apiError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(line{Error: message})
}

// serve answers with a line an item. What fails before the first line has a
// status of its own; later the last line says how it ended.
func (op operation) serve(w http.ResponseWriter, r *http.Request, o *operator) {
	var params any
	var err error
	if op.method == http.MethodGet {
		params, err = op.fromQuery(r.URL.Query())
	} else {
		params, err = op.fromJSON(http.MaxBytesReader(w, r.Body, 256<<20))
	}
	if err != nil {
		apiError(w, http.StatusBadRequest, err.Error())
		return
	}
	begun := false
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	flushed := time.Now()
	write := func(l line, now bool) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		if err := enc.Encode(l); err != nil {
			return err
		}
		if now || time.Since(flushed) > 200*time.Millisecond {
			flushed = time.Now()
			if err := out.Flush(); err != nil {
				return err
			}
			return http.NewResponseController(w).Flush()
		}
		return nil
	}
	err = op.run(r.Context(), o, params, sink{
		item:     func(item any) error { return write(line{Item: item}, false) },
		progress: func(p progress) { write(line{Progress: &p}, true) },
	})
	switch {
	case err == nil:
	case begun:
		write(line{Error: err.Error()}, true)
		return
	case retry.ClassOf(err) == retry.Outage:
		apiError(w, http.StatusServiceUnavailable, err.Error())
		return
	default:
		apiError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	write(line{Done: true}, true)
}

// executor carries operations out: here, or on a server.
type executor func(ctx context.Context, op operation, params any, out sink) error

// remote asks a server's admin listener.
func remote(server, token string, client *http.Client) executor {
	return func(ctx context.Context, op operation, params any, out sink) error {
		target := strings.TrimSuffix(server, "/") + op.path
		var body io.Reader
		if op.method == http.MethodGet {
			target += "?" + query(params).Encode()
		} else {
			text, err := json.Marshal(params)
			if err != nil {
				return err
			}
			body = bytes.NewReader(text)
		}
		req, err := http.NewRequestWithContext(ctx, op.method, target, body)
		if err != nil {
			return fmt.Errorf("--server: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("%s does not answer: %w", server, err)
		}
		defer resp.Body.Close()
		dec := json.NewDecoder(resp.Body)
		for {
			item := op.newItem()
			l := line{Item: item}
			if err := dec.Decode(&l); err != nil {
				if resp.StatusCode != http.StatusOK {
					return fmt.Errorf("%s answered %s", target, resp.Status)
				}
				return fmt.Errorf("%s: the answer was cut off: %w", server, err)
			}
			switch {
			case l.Error != "" && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnprocessableEntity:
				return fmt.Errorf("%s answered %s: %s", server, resp.Status, l.Error)
			case l.Error != "":
				return errors.New(l.Error)
			case l.Done:
				return nil
			case l.Progress != nil:
				out.progress(*l.Progress)
			default:
				if err := out.item(item); err != nil {
					return err
				}
			}
		}
	}
}

// newItem is a pointer to an item of the operation.
func (op operation) newItem() any {
	if op.item == nil {
		return new(json.RawMessage)
	}
	return reflect.New(reflect.TypeOf(op.item)).Interface()
}

// local carries out operations on bucket, queue and table themselves.
func local(o *operator) executor {
	return func(ctx context.Context, op operation, params any, out sink) error {
		return op.run(ctx, o, params, sink{
			item: func(item any) error {
				// As a pointer, as it comes from a server.
				p := reflect.New(reflect.TypeOf(item))
				p.Elem().Set(reflect.ValueOf(item))
				return out.item(p.Interface())
			},
			progress: out.progress,
		})
	}
}

// common are the flags that all commands of operations have.
type common struct {
	config, server, token, ca *string
	json                      *bool
}

func commonFlags(fs *flag.FlagSet) common {
	return common{
		config: configFlag(fs),
		server: fs.String("server", "", "`URL` of an admin listener that shall do it; else it is done from here"),
		token:  fs.String("token", "", "admin `token` of that server; else PENSTOCK_ADMIN_TOKEN, else admin.token of the configuration"),
		ca:     fs.String("ca", "", "`file` with the CA of that server's certificate; else status.tls.ca of the configuration"),
		json:   fs.Bool("json", false, "as JSON, a line an item"),
	}
}

// executor is that of the flags; close it afterwards.
func (c common) executor(s streams) (executor, func() error, error) {
	if *c.server != "" {
		token := *c.token
		if token == "" {
			token = os.Getenv("PENSTOCK_ADMIN_TOKEN")
		}
		cfg, err := readConfig(*c.config)
		if err != nil && *c.config != "" {
			return nil, nil, err
		}
		if token == "" {
			if secret, err := cfg.Admin.Secret(slog.New(slog.DiscardHandler)); err == nil {
				token = secret()
			}
		}
		if token == "" {
			return nil, nil, errors.New("--server needs a token: --token, PENSTOCK_ADMIN_TOKEN, admin.token or admin.token_file in the configuration")
		}
		files := cfg.Status.TLS
		if *c.ca != "" {
			files.CA = *c.ca
		}
		return remote(*c.server, token, files.HTTPClient()), func() error { return nil }, nil
	}
	cfg, err := readConfig(*c.config)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Process.LogLevel == "info" {
		cfg.Process.LogLevel = "error" // a command's own words are enough
	}
	log, err := app.NewLogger(s.err, cfg.Process)
	if err != nil {
		return nil, nil, err
	}
	o := newOperator(cfg, log)
	o.isolated = isolation(*c.config, "operator-"+loaderName(cfg), s.err)
	o.said, o.from = s.err, " in "+cmp.Or(*c.config, config.Find())
	if o.from == " in " {
		o.from = " (no configuration was found here, --config names one)"
	}
	return local(o), o.close, nil
}

// bind makes flags of an operation's params; the fields of arguments are returned.
func bind(fs *flag.FlagSet, params any) (args []paramField) {
	for _, f := range paramFields(params) {
		switch {
		case f.arg != "":
			args = append(args, f)
		case f.value.Kind() == reflect.Bool:
			fs.BoolVar(f.value.Addr().Interface().(*bool), f.name, f.value.Bool(), f.usage)
		case f.value.Kind() == reflect.Int:
			fs.IntVar(f.value.Addr().Interface().(*int), f.name, int(f.value.Int()), f.usage)
		case f.value.Kind() == reflect.Slice:
			fs.Func(f.name, f.usage, f.set)
		default:
			fs.StringVar(f.value.Addr().Interface().(*string), f.name, f.value.String(), f.usage)
		}
	}
	return args
}

// parseWithArgs reads flags and, between and behind them, arguments.
func parseWithArgs(fs *flag.FlagSet, args []string) ([]string, error) {
	var free []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, errUsage
		}
		if fs.NArg() == 0 {
			return free, nil
		}
		free = append(free, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

// hooks are what a command does besides its operation.
type hooks struct {
	prepare func(params any, ex executor) error // before it
	wrap    func(executor) executor             // in place of it
}

// command runs an operation as a command: parse, do, print.
func (op operation) command(ctx context.Context, s streams, args []string, h hooks) error {
	params := op.newParams()
	fs := newFlags(s, op.name, strings.TrimSpace(op.short+"\n"+op.about))
	c := commonFlags(fs)
	fields := bind(fs, params)
	usage := fs.Usage
	if len(fields) > 0 {
		fs.Usage = func() {
			usage()
			fmt.Fprint(fs.Output(), "\nArguments, before, between or behind the flags:\n\n")
			for _, f := range fields {
				fmt.Fprintf(fs.Output(), "  %-22s %s\n", f.arg, f.usage)
			}
		}
	}
	free, err := parseWithArgs(fs, args)
	if err != nil {
		return err
	}
	for _, a := range free {
		if len(fields) == 0 {
			fmt.Fprintf(fs.Output(), "penstock %s: what is %q?\n", op.name, a)
			return errUsage
		}
		fields[0].set(a)
		if fields[0].value.Kind() == reflect.String {
			fields = fields[1:]
		}
	}
	ex, done, err := c.executor(s)
	if err != nil {
		return err
	}
	if h.prepare != nil {
		err = h.prepare(params, ex)
	}
	if h.wrap != nil {
		ex = h.wrap(ex)
	}
	if err == nil {
		err = op.show(ctx, s, ex, params, *c.json)
	}
	return errors.Join(err, done())
}

// show carries an operation out and prints its lines as they come: a table
// aligns its columns block by block, so that long lists stream.
func (op operation) show(ctx context.Context, s streams, ex executor, params any, asJSON bool) error {
	live := show.NewLine(s.err)
	defer live.End()
	out := bufio.NewWriter(s.out)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	items, kinds := 0, map[string]int{}
	err := ex(ctx, op, params, sink{
		item: func(item any) error {
			items++
			kinds[""]++
			if op.kind != nil {
				kinds[op.kind(item)]++
			}
			switch {
			case asJSON || op.row == nil && op.print == nil:
				if raw, ok := item.(*json.RawMessage); ok {
					out.Write(*raw)
					return out.WriteByte('\n')
				}
				return enc.Encode(item)
			case op.print != nil:
				live.End()
				return op.print(out, item)
			}
			if items%1000 == 1 {
				if err := table.Flush(); err != nil {
					return err
				}
				fmt.Fprintln(table, strings.Join(op.header, "\t"))
			}
			row := op.row(item)
			for i := range row { // a line is a line
				row[i] = strings.Join(strings.Fields(row[i]), " ")
			}
			_, err := fmt.Fprintln(table, strings.Join(row, "\t"))
			return err
		},
		progress: func(p progress) {
			live.Show("%s", show.Terminal(p.String()))
		},
	})
	live.End()
	err = errors.Join(err, table.Flush())
	if op.sum != nil && !asJSON && err == nil {
		op.sum(out, kinds)
	}
	return errors.Join(err, out.Flush())
}

// group is a command with subcommands that are operations.
func group(name, short string) command {
	return command{name, short, func(ctx context.Context, s streams, args []string) error {
		sub := ""
		if len(args) > 0 {
			sub = args[0]
		}
		for _, op := range operations() {
			if op.name == name+" "+sub {
				if op.special != nil {
					return op.special(ctx, s, args[1:])
				}
				return op.command(ctx, s, args[1:], hooks{})
			}
		}
		w := s.err
		if sub == "-h" || sub == "--help" || sub == "help" {
			w = s.out
		} else if sub != "" {
			fmt.Fprintf(w, "penstock %s: there is no %q\n\n", name, sub)
		}
		fmt.Fprintf(w, "Usage: penstock %s COMMAND [FLAGS]\n\n", name)
		for _, op := range operations() {
			if rest, ok := strings.CutPrefix(op.name, name+" "); ok {
				fmt.Fprintf(w, "  %-9s %s\n", rest, op.short)
			}
		}
		if w == s.out {
			return nil
		}
		return errUsage
	}}
}
