package protocol

import (
	"net/http"
	"net/url"
	"strings"
)

// KeyNames are the names under which clients put their key into a body, a query or a form.
var KeyNames = []string{"key", "api_key", "token", "writeKey"}

// HeadKey returns the key from a header, from the user of Basic authentication, or from the query, which beacons need.
func HeadKey(req *http.Request) (key string, given bool) {
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
	key = QueryValue(req.URL.RawQuery, "key")
	return key, key != ""
}

// HeadOrQueryKey is HeadKey. Without a key in the head, it returns the first parameter that has a value.
func HeadOrQueryKey(req *http.Request, parameters ...string) (key string, given bool) {
	key, given = HeadKey(req)
	for _, name := range parameters {
		if given {
			break
		}
		key = QueryValue(req.URL.RawQuery, name)
		given = key != ""
	}
	return key, given
}

// QueryValue returns the first value of a query parameter. An empty query costs nothing.
func QueryValue(raw, name string) string {
	if raw == "" {
		return ""
	}
	values, _ := url.ParseQuery(raw)
	return values.Get(name)
}

// PathPart returns a part of a path by its place between slashes.
func PathPart(path string, at int) string { return strings.Split(path, "/")[at] }
