package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/show"
)

// ParseStrict reads a YAML file into cfg, a pointer to a struct, and keeps other values. If name is empty, the caller
// adds the file's name to errors.
func ParseStrict(name string, text []byte, env map[string]string, cfg any) error {
	_, err := parse(name, text, env, cfg)
	return err
}

// parse returns the line of each value in the file.
func parse(name string, text []byte, env map[string]string, cfg any) (Sources, error) {
	s := strict{env: env, sources: Sources{}, place: func(line int) string {
		if name == "" {
			return "line " + strconv.Itoa(line)
		}
		return name + ":" + strconv.Itoa(line)
	}}
	var doc yaml.Node
	if err := DecodeYAML(text, &doc); err != nil {
		return nil, s.syntax(err)
	}
	if len(doc.Content) == 0 {
		return s.sources, nil // an empty file
	}
	root := doc.Content[0]
	s.node(root, reflect.TypeOf(cfg).Elem(), "")
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.sources, root.Decode(cfg)
}

// DecodeYAML reads one YAML document. It rejects a second one, which the YAML library would ignore.
func DecodeYAML(text []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(into); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	var second yaml.Node
	if err := d.Decode(&second); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf(
		`line %d: a second YAML document begins here, and only one is read: remove the "---" or the document`,
		second.Line)
}

// strict reads the nodes of a YAML text as fields. It puts the environment's values in place of ${NAME}.
type strict struct {
	env     map[string]string
	place   func(line int) string
	sources Sources
	errs    []error
	unset   []error // variables that are not set
}

// ErrUnset means that the file refers to a variable that is not set.
var ErrUnset = errors.New("is not set in the environment: set it, or remove it from the file")

// err joins all errors. Unset variables count only if there are no other errors.
func (s *strict) err() error {
	if len(s.errs) > 0 {
		return errors.Join(s.errs...)
	}
	return errors.Join(s.unset...)
}

func (s *strict) wrong(n *yaml.Node, field, do string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf("%s (from %s): %s", field, s.place(n.Line), fmt.Sprintf(do, args...)))
}

var syntaxError = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)`)

// syntax adds the place to an error of the YAML library.
func (s *strict) syntax(err error) error {
	at := syntaxError.FindStringSubmatch(err.Error())
	if at == nil {
		return fmt.Errorf("YAML syntax (from %s): %w", s.place(1), err)
	}
	line, _ := strconv.Atoi(at[1])
	if strings.Contains(at[2], "cannot start any token") {
		at[2] += "; indent with blanks, not with tabs"
	}
	return fmt.Errorf("YAML syntax (from %s): %s", s.place(line), at[2])
}

// node checks a node as a value of type t. Its field is prefixed by the keys above it.
func (s *strict) node(n *yaml.Node, t reflect.Type, field string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	_, reads := reflect.New(t).Interface().(yaml.Unmarshaler)
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
	case t.Kind() == reflect.Struct && (!reads || n.Kind == yaml.MappingNode):
		s.fields(n, t, field)
	case t.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			s.node(n.Content[i+1], t.Elem(), join(field, n.Content[i].Value))
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && n.Kind == yaml.SequenceNode:
		s.sources[field] = s.place(n.Line)
		for i, item := range n.Content {
			s.node(item, t.Elem(), fmt.Sprintf("%s[%d]", field, i))
		}
	default:
		s.leaf(n, t, field)
	}
}

func join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}

// fields checks the fields of a section.
func (s *strict) fields(n *yaml.Node, t reflect.Type, section string) {
	if n.Kind != yaml.MappingNode {
		s.wrong(n, cmp.Or(section, "the file"), "want fields, as \"name: value\", and not a list or a single value")
		return
	}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		field, ok := fieldOf(t, key.Value)
		switch {
		case !ok:
			s.wrong(key, "unknown field "+join(section, key.Value), "%s", didYouMean(t, key.Value))
			continue
		case seen[key.Value] > 0:
			s.wrong(key, join(section, key.Value), "it is set in line %d already: remove one", seen[key.Value])
			continue
		}
		seen[key.Value] = key.Line
		if field.Tag.Get("secret") != "" {
			before := len(s.errs)
			s.node(n.Content[i+1], field.Type, join(section, key.Value))
			if len(s.errs) > before { // without the value
				s.errs = s.errs[:before]
				s.wrong(key, join(section, key.Value), "want %s", wanted(field.Type))
			}
			continue
		}
		s.node(n.Content[i+1], field.Type, join(section, key.Value))
	}
}

// leaf checks a value.
func (s *strict) leaf(n *yaml.Node, t reflect.Type, field string) {
	s.sources[field] = s.place(n.Line)
	if !s.expand(n, field) {
		return
	}
	into := reflect.New(t)
	err := n.Decode(into.Interface())
	if _, reads := into.Interface().(yaml.Unmarshaler); err == nil && into.Elem().CanInt() && !reads &&
		n.ShortTag() == "!!float" { // the library would cut 1.5 to 1
		err = &yaml.TypeError{}
	}
	if err == nil {
		return
	}
	value := ""
	if n.Kind == yaml.ScalarNode {
		value = " " + strconv.Quote(show.URL(n.Value))
	}
	if _, ok := errors.AsType[*yaml.TypeError](err); ok {
		s.wrong(n, field+value, "want %s", wanted(t))
		return
	}
	text := strings.TrimPrefix(err.Error(), fmt.Sprintf("line %d: ", n.Line))
	s.wrong(n, field+value, "%s", text)
}

// wanted describes how a value of a type is written.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "a list, as [a, b]"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	}
	return "a whole number"
}

func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if f.Tag.Get("yaml") == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// didYouMean suggests a field of t, or lists them all.
func didYouMean(t reflect.Type, name string) string {
	var known []string
	for f := range t.Fields() {
		known = append(known, f.Tag.Get("yaml"))
	}
	if best := closest(name, known); best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "known are " + strings.Join(known, ", ")
}

// closest is the most similar known name; empty if none is similar.
func closest(name string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	distance := func(k string) int { return levenshtein.ComputeDistance(name, k) }
	best := slices.MinFunc(known, func(a, b string) int { return cmp.Compare(distance(a), distance(b)) })
	if distance(best) > 3 || distance(best) >= len(name) {
		return ""
	}
	return best
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces ${NAME} by the environment's values, in values only. It reports whether all are set.
func (s *strict) expand(n *yaml.Node, field string) bool {
	ok := true
	if n.Kind == yaml.ScalarNode {
		value := variable.ReplaceAllStringFunc(n.Value, func(text string) string {
			v, set := s.env[text[2:len(text)-1]]
			if !set {
				s.unset = append(s.unset, fmt.Errorf("%s (from %s): %s %w", field, s.place(n.Line), text, ErrUnset))
				ok = false
			}
			return v
		})
		if value != n.Value {
			n.Value = value
			if n.Style == 0 {
				n.Tag = "" // a number from the environment is a number
			}
		}
	}
	for _, c := range n.Content {
		ok = s.expand(c, field) && ok
	}
	return ok
}
