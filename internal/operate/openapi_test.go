package operate

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/config"
)

var update = flag.Bool("update", false, "write docs/openapi.json anew")

// docs/openapi.json describes exactly what the handlers do.
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
		t.Errorf("%s is not what the handlers do; write it anew: go test ./internal/operate -run TestOpenAPI -update", path)
	}
	// Every path in the document has a handler that needs the token.
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(have, &doc); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	handleOperations(mux, &Operator{Config: config.Default()}, NewAccess(func() string { return "secret" }, nil))
	n := 0
	for path, methods := range doc.Paths {
		for method := range methods {
			n++
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(strings.ToUpper(method), path, nil))
			if w.Code != http.StatusUnauthorized {
				t.Errorf("%s %s without the token: %d", method, path, w.Code)
			}
			r := httptest.NewRequest(strings.ToUpper(method), path+"?no_such_parameter=1",
				strings.NewReader(`{"no_such_parameter":1}`))
			r.Header.Set("Authorization", "Bearer secret")
			w = httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "no_such_parameter") {
				t.Errorf("%s %s with an unknown parameter: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
	if want := len(Operations()) + 1; n != want { // plus the path of blobs
		t.Errorf("%d operations in the document, want %d", n, want)
	}
}

// For every operation, the server reads the params that a command sends.
func TestParamsTravel(t *testing.T) {
	for _, op := range Operations() {
		sent := op.NewParams()
		for i, f := range Fields(sent) {
			switch f.Value.Kind() {
			case reflect.String:
				f.Value.SetString("a b&c=ü" + f.Name)
			case reflect.Bool:
				f.Value.SetBool(true)
			case reflect.Int:
				f.Value.SetInt(int64(40 + i))
			case reflect.Slice:
				f.Value.Set(reflect.ValueOf([]string{"x/y=z", "-"}))
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
			t.Errorf("%s: got %+v, %v; sent %+v", op.Name, got, err, sent)
		}
	}
}

// Sent values replace defaults, even if they are zero.
func TestParamsZero(t *testing.T) {
	for _, op := range Operations() {
		sent := op.NewParams()
		for _, f := range Fields(sent) {
			f.Value.SetZero()
		}
		if op.method != http.MethodGet {
			continue
		}
		got, err := op.fromQuery(query(sent))
		if err != nil || !reflect.DeepEqual(got, sent) {
			t.Errorf("%s: got %+v, %v; sent %+v", op.Name, got, err, sent)
		}
	}
}
