package config

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Schema is the JSON Schema of the file, for editors. Its descriptions are those of the fields.
func Schema() map[string]any {
	root := schemaOf(reflect.TypeFor[Config](), "")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of Penstock"
	return root
}

// reference matches ${NAME}, which replaces a value of any type.
const reference = `\$\{[A-Za-z_][A-Za-z0-9_]*\}`

// schemaOf describes values of a type with these tags.
func schemaOf(t reflect.Type, tag reflect.StructTag) map[string]any {
	var s map[string]any
	switch t {
	case reflect.TypeFor[Duration]():
		s = either(text(`-?([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+`), map[string]any{"const": 0})
	case reflect.TypeFor[Size]():
		s = either(map[string]any{"type": "integer", "minimum": 0}, text(`[0-9]+ *(B|KiB|MiB|GiB|TiB)?`))
	case reflect.TypeFor[Paths]():
		s = either(map[string]any{"type": "string"}, list(map[string]any{"type": "string"}))
	case reflect.TypeFor[ClickHouseTLS]():
		s = either(map[string]any{"type": "boolean"}, section(t))
	default:
		s = ofKind(t, tag)
	}
	if doc := tag.Get("doc"); doc != "" {
		s["description"] = doc
	}
	if def := tag.Get("default"); def != "" {
		var v any
		if yaml.Unmarshal([]byte(def), &v) == nil {
			s["default"] = v
		}
	}
	return s
}

func ofKind(t reflect.Type, tag reflect.StructTag) map[string]any {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), "")
	case reflect.Struct:
		return section(t)
	case reflect.Slice:
		return list(schemaOf(t.Elem(), ""))
	case reflect.Bool:
		return orReference(map[string]any{"type": "boolean"})
	case reflect.Float64:
		return orReference(map[string]any{"type": "number"})
	case reflect.String:
		if known := tag.Get("enum"); known != "" {
			return orReference(map[string]any{"enum": strings.Fields(known + " " + tag.Get("also"))})
		}
		return map[string]any{"type": "string"}
	}
	return orReference(map[string]any{"type": "integer", "minimum": 1})
}

// section describes an object with the fields of a struct. A section may be empty.
func section(t reflect.Type) map[string]any {
	fields := map[string]any{}
	for f := range t.Fields() {
		fields[f.Tag.Get("yaml")] = schemaOf(f.Type, f.Tag)
	}
	return map[string]any{"type": []string{"object", "null"}, "properties": fields, "additionalProperties": false}
}

func list(items map[string]any) map[string]any {
	return map[string]any{"type": []string{"array", "null"}, "items": items}
}

func either(all ...map[string]any) map[string]any { return map[string]any{"anyOf": all} }

// text describes a string by a pattern, or a reference.
func text(pattern string) map[string]any {
	return map[string]any{"type": "string", "pattern": "^(" + pattern + "|.*" + reference + ".*)$"}
}

func orReference(s map[string]any) map[string]any {
	return either(s, map[string]any{"type": "string", "pattern": reference})
}
