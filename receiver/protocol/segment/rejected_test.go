package segment_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/receivertest"
)

func TestRejectedPixels(t *testing.T) {
	for _, c := range []struct {
		target string
		status int
		code   string
		kept   string
	}{
		{"/pixel/v1/track?event=a", 401, "missing_key", "event=a"},
		{"/pixel/v1/track?event=a&writeKey=no", 401, "unknown_key", "event=a"},
		{"/pixel/v1/track?writeKey=KEY", 400, "missing_name", ""},
		{"/pixel/v1/track?writeKey=KEY&event=a&event=b", 400, "wrong_type", "event=a&event=b"},
		{"/pixel/v1/track?writeKey=KEY&event=a&properties.a=1&properties.a.b=2", 400, "duplicate_key",
			"event=a&properties.a=1&properties.a.b=2"},
		{"/pixel/v1/track?writeKey=KEY&event=a&properties=%7B%7D&properties.a=2", 400, "duplicate_key",
			"event=a&properties=%7B%7D&properties.a=2"},
		{"/pixel/v1/track?writeKey=KEY&event=%ff", 400, "invalid_utf8", "event=%ff"},
		{"/pixel/v1/track?writeKey=KEY&event=%zz", 400, "invalid_query", "event=%zz"},
		{"/v1/pixel/track?data=!!&writeKey=KEY", 400, "invalid_form", "data=!!"},
		{"/v1/pixel/track?data=e30", 401, "missing_key", "data=e30"},
		{"/v1/pixel/track?data=e30&writeKey=KEY", 400, "missing_name", `{}`},
	} {
		r, s := receivertest.Start(nil)
		w := intake.Do(r, httptest.NewRequest("GET", strings.ReplaceAll(c.target, "KEY", key), nil))
		if w.Code != c.status || w.Body.String() != intake.Transparent || len(s.Events) != 0 || len(s.Failures) != 1 ||
			s.Failures[0].Code != c.code || string(s.Failures[0].Raw) != c.kept {
			t.Errorf("%s: got %d %s, failures %+v", c.target, w.Code, w.Body, s.Failures)
		}
	}
}
