package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/penstock/penstock/internal/show"
)

// Sources are the sources of values by field, such as batcher.format: a file with a line, or an environment variable.
// Missing fields have their defaults.
type Sources map[string]string

// Of is the source of a field's value; empty: the default.
func (s Sources) Of(field string) string {
	for {
		if place, ok := s[field]; ok {
			return place
		}
		i := strings.LastIndexAny(field, ".[")
		if i < 0 {
			return ""
		}
		field = field[:i]
	}
}

// set sets the source of a field and of all fields below it.
func (s Sources) set(field, place string) {
	for f := range s {
		if strings.HasPrefix(f, field+".") || strings.HasPrefix(f, field+"[") {
			delete(s, f)
		}
	}
	s[field] = place
}

// Value is a field of the effective configuration. Secrets are hidden.
type Value struct {
	Field  string `json:"field"`
	Value  string `json:"value"`
	Source string `json:"source"` // default, a variable, or a file and a line
}

// Values are all fields in their order.
func (s Sources) Values(cfg Config) (all []Value) {
	var add func(v reflect.Value, field string, secret bool)
	add = func(v reflect.Value, field string, secret bool) {
		switch {
		case v.Kind() == reflect.Pointer && !v.IsNil():
			add(v.Elem(), field, secret)
		case v.Kind() == reflect.Struct:
			for f := range v.Type().Fields() {
				add(v.FieldByIndex(f.Index), join(field, f.Tag.Get("yaml")), f.Tag.Get("secret") != "")
			}
		case v.Kind() == reflect.Slice && v.Len() > 0 && v.Type().Elem().Kind() == reflect.Struct:
			for i := range v.Len() {
				add(v.Index(i), fmt.Sprintf("%s[%d]", field, i), secret)
			}
		default:
			value := Value{field, shown(v, secret), s.Of(field)}
			// An item of a list need not have all fields.
			if absent := s[field] == "" && v.IsZero() && strings.Contains(field, "["); absent || value.Source == "" {
				value.Source = "default"
			}
			all = append(all, value)
		}
	}
	add(reflect.ValueOf(cfg), "", false)
	return all
}

// shown is a value as in a file, without passwords.
func shown(v reflect.Value, secret bool) string {
	switch {
	case secret && !v.IsZero():
		return "[HIDDEN]"
	case v.Kind() == reflect.String:
		if v.String() == "" {
			return `""`
		}
		return show.URL(v.String())
	case v.Kind() == reflect.Slice:
		texts := make([]string, v.Len())
		for i := range texts {
			texts[i] = show.URL(fmt.Sprint(v.Index(i).Interface()))
		}
		return "[" + strings.Join(texts, ", ") + "]"
	case v.Kind() == reflect.Pointer: // nil
		return "null"
	}
	return fmt.Sprint(v.Interface())
}
