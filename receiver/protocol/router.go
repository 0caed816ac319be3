package protocol

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Router finds the route of a request.
type Router struct {
	routes  map[string][]*Route // by path, without a slash at the end
	headers []string            // all of Route.EventHeaders
}

// NewRouter returns a router. If several routes have the same path, the first that matches counts. All but the last
// need a Match, otherwise later ones could never be found.
func NewRouter(products ...[]*Route) (*Router, error) {
	r := &Router{routes: map[string][]*Route{}}
	for _, routes := range products {
		for _, route := range routes {
			r.headers = append(r.headers, route.EventHeaders...)
			for _, path := range route.Paths {
				if err := r.add(path, route); err != nil {
					return nil, err
				}
			}
		}
	}
	return r, nil
}

func (r *Router) add(path string, route *Route) error {
	for _, earlier := range r.routes[path] {
		if earlier.Match == nil {
			return fmt.Errorf("path %s: route %q already receives every request, so route %q never would: "+
				"give the first a Match, or join both by a Chooser as package batch does", path, earlier.Name, route.Name)
		}
	}
	r.routes[path] = append(r.routes[path], route)
	return nil
}

// Find returns the route for a path and head; nil: none.
func (r *Router) Find(path string, head http.Header) *Route {
	routes := r.routes[path]
	if routes == nil {
		routes = r.routes[strings.TrimSuffix(r.Keyless(strings.TrimSuffix(path, "/")), "/")]
	}
	for _, route := range routes {
		if route.Match == nil || route.Match(head) {
			return route
		}
	}
	return nil
}

// Paths returns all served paths.
func (r *Router) Paths() []string {
	var all []string
	for path := range r.routes {
		all = append(all, path)
	}
	return all
}

// maxKeyAt is the last possible place of a key in a path: /v1/projects/{}/settings.
const maxKeyAt = 3

// Keyless returns a path without the key in it: /v2/{}/events.
func (r *Router) Keyless(path string) string {
	if r.routes[path] != nil {
		return path
	}
	for at := 2; at <= maxKeyAt; at++ { // 0 is before the first slash, and no path begins with a key
		parts := strings.SplitN(path, "/", at+2)
		if len(parts) < at+2 {
			break
		}
		parts[at] = "{}"
		if without := strings.Join(parts, "/"); r.routes[strings.TrimSuffix(without, "/")] != nil {
			return without
		}
	}
	return path
}

// IsEventHeader reports whether a header belongs to an event of some protocol.
func (r *Router) IsEventHeader(name string) bool {
	return slices.ContainsFunc(r.headers, func(h string) bool {
		if strings.HasSuffix(h, "-") {
			return len(name) > len(h) && strings.HasPrefix(name, h)
		}
		return name == h
	})
}

// EventHeaders returns the names of the headers that belong to an event, sorted.
func (r *Router) EventHeaders(head http.Header) (names []string) {
	for name := range head {
		if r.IsEventHeader(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
