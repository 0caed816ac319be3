package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/config"
)

var update = flag.Bool("update", false, "write docs/openapi.json anew")

// docs/openapi.json describes what the handlers do, no more and no less.
func TestOpenAPI(t *testing.T) {
	const path = "../../docs/openapi.json"
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(openAPI()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what the handlers do; write it anew: go test ./cmd/penstock -run TestOpenAPI -update", path)
	}
	// Every path of the document has its handler, which wants the token.
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(have, &doc); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	handleOperations(mux, newOperator(config.Default(), slog.New(slog.DiscardHandler)), func() string { return "secret" })
	n := 0
	for path, methods := range doc.Paths {
		for method := range methods {
			n++
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(strings.ToUpper(method), path, nil))
			if w.Code != http.StatusUnauthorized {
				t.Errorf("%s %s without the token: %d", method, path, w.Code)
			}
			r := httptest.NewRequest(strings.ToUpper(method), path+"?no_such_parameter=1", strings.NewReader(`{"no_such_parameter":1}`))
			r.Header.Set("Authorization", "Bearer secret")
			w = httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "no_such_parameter") {
				t.Errorf("%s %s with an unknown parameter: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
	if want := len(operations()) + 1; n != want { // and that of blobs
		t.Errorf("%d operations in the document, want %d", n, want)
	}
}

// What a command sends is what the server reads, for every operation.
func TestParamsTravel(t *testing.T) {
	for _, op := range operations() {
		sent := op.newParams()
		for i, f := range paramFields(sent) {
			switch f.value.Kind() {
			case reflect.String:
				f.value.SetString("a b&c=ü" + f.name)
			case reflect.Bool:
				f.value.SetBool(true)
			case reflect.Int:
				f.value.SetInt(int64(40 + i))
			case reflect.Slice:
				f.value.Set(reflect.ValueOf([]string{"x/y=z", "-"}))
			}
		}
		var got any
		var err error
		if op.method == http.MethodGet {
			got, err = op.fromQuery(query(sent))
		} else {
			text, _ := json.Marshal(sent)
			got, err = op.fromJSON(bytes.NewReader(text))
		}
		if err != nil || !reflect.DeepEqual(got, sent) {
			t.Errorf("%s: got %+v, %v; sent %+v", op.name, got, err, sent)
		}
	}
}

// Defaults are changed by what is sent, in zeros as well.
func TestParamsZero(t *testing.T) {
	for _, op := range operations() {
		sent := op.newParams()
		for _, f := range paramFields(sent) {
			f.value.SetZero()
		}
		if op.method != http.MethodGet {
			continue
		}
		got, err := op.fromQuery(query(sent))
		if err != nil || !reflect.DeepEqual(got, sent) {
			t.Errorf("%s: got %+v, %v; sent %+v", op.name, got, err, sent)
		}
	}
}

func TestGroupHelp(t *testing.T) {
	for _, args := range [][]string{{"dlq"}, {"dlq", "nothing"}, {"errors", "list", "extra", "--no-such"}} {
		var said bytes.Buffer
		if err := run(t.Context(), streams{io.Discard, &said}, args); err != errUsage || said.Len() == 0 {
			t.Errorf("%v: %v %s", args, err, &said)
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), streams{&out, io.Discard}, []string{"help", "keys", "add"}); err != nil || !strings.Contains(out.String(), "--min-durability") {
		t.Errorf("help keys add: %v\n%s", err, &out)
	}
	if err := run(t.Context(), streams{&out, io.Discard}, []string{"help", "dlq"}); err != nil || !strings.Contains(out.String(), "redrive") {
		t.Errorf("help dlq: %v %s", err, &out)
	}
}
