package operate

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"time"
)

type object = map[string]any

// openAPI describes the operators' API. A test keeps docs/openapi.json equal to it.
func openAPI() object {
	paths := object{"/v1/blobs/{key}": object{"get": describeBlob()}}
	for _, op := range Operations() {
		path, _ := paths[op.path].(object)
		if path == nil {
			path = object{}
			paths[op.path] = path
		}
		path[strings.ToLower(op.method)] = op.describe()
	}
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "Penstock's operators' API", "version": "1",
			"description": "On the admin listener of every receiver and loader, where admin.token is set. Each path but that " +
				"of blobs is a command of the same name: `penstock --server URL` asks it."},
		"security":   []object{{"token": []string{}}},
		"components": object{"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}}},
		"paths":      paths,
	}
}

// describe returns the operation in OpenAPI's form.
func (op Operation) describe() object {
	item := object{}
	if op.item != nil {
		item = schema(reflect.TypeOf(op.item))
	}
	o := object{
		"operationId": strings.ReplaceAll(op.Name, " ", "-"),
		"summary":     op.Short,
		"responses": object{
			"200": object{
				"description": "Newline-delimited JSON, a line an item. The last line is {\"done\":true}, or {\"error\":…} " +
					"where it did not come to its end.",
				"content": object{"application/x-ndjson": object{"schema": object{
					"type": "object", "properties": object{
						"item": item, "progress": schema(reflect.TypeFor[progress]()),
						"error": object{"type": "string"}, "done": object{"type": "boolean"}},
				}}},
			},
			"400": failure("The parameters are not understood."),
			"401": failure("The token is missing or wrong."),
			"422": failure("It cannot be done so; the text says why."),
			"503": failure("Bucket, queue or ClickHouse cannot be reached now."),
			"403": failure("The API is off: admin.token is not set."),
		},
	}
	if op.About != "" {
		o["description"] = op.About
	}
	if op.method != http.MethodGet {
		o["requestBody"] = object{"content": object{"application/json": object{"schema": op.bodySchema()}}}
	} else if query := op.querySchema(); query != nil {
		o["parameters"] = query
	}
	return o
}

// querySchema describes the parameters in a query.
func (op Operation) querySchema() (all []object) {
	for _, f := range Fields(op.NewParams()) {
		s := schema(f.Value.Type())
		if len(f.Enum) > 0 {
			s["enum"] = f.Enum
		}
		if f.Default != "" {
			s["default"] = f.Value.Interface()
		}
		all = append(all, object{"name": f.Name, "in": "query", "description": f.Usage, "schema": s})
	}
	return all
}

// bodySchema describes the parameters in a body.
func (op Operation) bodySchema() object {
	params := op.NewParams()
	s := schema(reflect.TypeOf(params).Elem())
	props := s["properties"].(object)
	for _, f := range Fields(params) {
		name := strings.ReplaceAll(f.Name, "-", "_")
		for _, n := range []string{name, name + "s"} {
			if p, ok := props[n].(object); ok {
				p["description"] = f.Usage
				if len(f.Enum) > 0 {
					p["enum"] = f.Enum
				}
				if f.Default != "" {
					p["default"] = f.Value.Interface()
				}
			}
		}
	}
	return s
}

// describeBlob describes serveBlob.
func describeBlob() object {
	return object{
		"operationId": "blob",
		"summary":     "a large value that left its event's row, as it is",
		"description": "By what the reference in the row says. A Range in the head is one of the value, and is answered " +
			"with 206.",
		"parameters": []object{
			{"name": "key", "in": "path", "required": true, "description": "object of the reference, slashes and all",
				"schema": object{"type": "string"}},
			{"name": "range", "in": "query",
				"description": "FIRST-LAST, the bytes in the object, both included; none: all of it",
				"schema":      object{"type": "string"}},
			{"name": "content_type", "in": "query", "description": "of the answer; none: what the bytes look like",
				"schema": object{"type": "string"}},
		},
		"responses": object{
			"200": object{"description": "The value.", "content": object{"*/*": object{}}},
			"206": object{"description": "A part of it.", "content": object{"*/*": object{}}},
			"400": failure("The range is not understood."),
			"401": failure("The token is missing or wrong."),
			"403": failure("The API is off: admin.token is not set."),
			"404": failure("There is no such object of blobs."),
			"416": failure("The object is shorter."),
			"503": failure("The bucket cannot be reached now."),
		},
	}
}

func failure(text string) object {
	return object{"description": text, "content": object{"application/json": object{"schema": object{
		"type": "object", "properties": object{"error": object{"type": "string"}}}}}}
}

// schema returns the JSON schema of a type.
func schema(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return object{}
	case t.Kind() == reflect.Pointer:
		return schema(t.Elem())
	}
	switch t.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schema(t.Elem())}
	case reflect.Struct:
		props := object{}
		fields(t, props)
		return object{"type": "object", "properties": props}
	}
	return object{"type": "integer"}
}

func fields(t reflect.Type, props object) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			fields(f.Type, props)
		case name != "-" && name != "":
			props[name] = schema(f.Type)
		}
	}
}
