package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write penstock.example.yaml and docs/reference/configuration.md")

const examplePath = "../../penstock.example.yaml"

// The example and the reference are what the tags of the fields say.
func TestGeneratedFiles(t *testing.T) {
	for path, want := range map[string]string{
		examplePath:                             example(),
		"../../docs/reference/configuration.md": referencePage(),
	} {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what config.go says: run go test ./internal/config -run TestGeneratedFiles -update", path)
		}
	}
}

// wrap breaks a text into comments.
func wrap(text, indent string) string {
	var b strings.Builder
	line := indent + "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

// defaultText is a field's default in one line.
func defaultText(v reflect.Value) string {
	var n yaml.Node
	if err := n.Encode(v.Interface()); err != nil {
		panic(err)
	}
	n.Style = yaml.FlowStyle
	if n.Kind == yaml.ScalarNode {
		n.Style = 0
		if v.Kind() == reflect.String && v.String() == "" {
			n.Style = yaml.DoubleQuotedStyle
		}
	}
	for _, c := range n.Content {
		if c.Kind == yaml.ScalarNode && c.Tag == "!!str" && (c.Value == "" || strings.ContainsAny(c.Value, "*:")) {
			c.Style = yaml.DoubleQuotedStyle
		}
	}
	text, err := yaml.Marshal(&n)
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(text))
}

// docOf is a field's description, with its values and the example of an item.
func docOf(f reflect.StructField) string {
	doc := f.Tag.Get("doc")
	if enum := f.Tag.Get("enum"); enum != "" {
		known := strings.Fields(enum)
		doc += " Values: " + strings.Join(known[:len(known)-1], ", ") + " or " + known[len(known)-1] + "."
	}
	return doc
}

// example is the file with every field at its default.
func example() string {
	var b strings.Builder
	b.WriteString(`# Configuration of Penstock: every field with its default. All roles read the same file.
#
# A file needs only the fields that differ. Unknown fields are errors.
# ${NAME} in a value is replaced by the environment variable NAME.
# PENSTOCK_SECTION_FIELD overrides a field: PENSTOCK_BATCHER_ROLL_AGE=30s.
# PENSTOCK_SECTION_FIELD_FILE names a file with the value of a text, such as a secret.
# Sizes: 4096, 64KiB, 32MiB, 8GiB. Durations: 200ms, 90s, 5m, 24h.
# "penstock config check" prints the effective configuration.
`)
	root := reflect.ValueOf(Default())
	for section := range root.Type().Fields() {
		b.WriteString("\n" + wrap(docOf(section), ""))
		if e := section.Tag.Get("example"); e != "" {
			b.WriteString(wrap("Example: - "+e, ""))
		}
		v := root.FieldByIndex(section.Index)
		if v.Kind() != reflect.Struct {
			fmt.Fprintf(&b, "%s: []\n", section.Tag.Get("yaml"))
			continue
		}
		fmt.Fprintf(&b, "%s:\n", section.Tag.Get("yaml"))
		for f := range section.Type.Fields() {
			b.WriteString(wrap(docOf(f), "  "))
			if e := f.Tag.Get("example"); e != "" {
				b.WriteString("  # Example: - " + e + "\n")
			}
			fmt.Fprintf(&b, "  %s: %s\n", f.Tag.Get("yaml"), defaultText(v.FieldByIndex(f.Index)))
		}
	}
	return b.String()
}

// referencePage is docs/reference/configuration.md.
func referencePage() string {
	var b strings.Builder
	b.WriteString(`# Configuration

All roles read one YAML file. The file needs only the fields that differ from their defaults. Unknown fields are errors.
This page is generated from the code. The [example](../../penstock.example.yaml) has every field at its default.

1. ` + "`penstock config check`" + ` prints the effective configuration, with the source of each value. Secrets are hidden.
2. ` + "`penstock config schema`" + ` prints a JSON Schema. Editors use it to complete and check the file.

A command reads the file that ` + "`--config`" + ` names. Without it, the command reads ` + "`penstock.yaml`" + ` in the current folder, or else the
file of a dev stack there.

| value | form |
|---|---|
| size | ` + "`4096`, `64KiB`, `32MiB`, `8GiB`" + ` |
| duration | ` + "`200ms`, `90s`, `5m`, `24h`" + ` |
| ` + "`${NAME}`" + ` | replaced by the environment variable ` + "`NAME`" + ` |

An environment variable overrides each field: ` + "`PENSTOCK_BATCHER_ROLL_AGE=30s`" + ` sets ` + "`batcher.roll_age`" + `. Lists are written as ` + "`a, b`" + `.
` + "`PENSTOCK_STORAGE_SECRET_KEY_FILE=/run/secrets/key`" + ` names a file with the value. All texts of a section have such a variable.
`)
	root := reflect.ValueOf(Default())
	row := func(f reflect.StructField, name, def string) {
		doc := strings.ReplaceAll(docOf(f), "|", `\|`)
		if e := f.Tag.Get("example"); e != "" {
			doc += " Example: `- " + e + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, def, doc)
	}
	// members are the fields of a section within a section, or of a list's items.
	members := func(t reflect.Type, name string) {
		for f := range t.Fields() {
			def := f.Tag.Get("default")
			if def != "" {
				def = "`" + def + "`"
			}
			row(f, name+"."+f.Tag.Get("yaml"), def)
		}
	}
	for section := range root.Type().Fields() {
		name := section.Tag.Get("yaml")
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| field | default | description |\n|---|---|---|\n", name, section.Tag.Get("doc"))
		v := root.FieldByIndex(section.Index)
		if v.Kind() == reflect.Slice {
			row(section, name, "`[]`")
			members(v.Type().Elem(), name+"[]")
			continue
		}
		for f := range section.Type.Fields() {
			field := f.Tag.Get("yaml")
			def := defaultText(v.FieldByIndex(f.Index))
			if f.Type.Kind() == reflect.Struct {
				row(f, field, "")
				members(f.Type, field)
				continue
			}
			row(f, field, "`"+def+"`")
			if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
				members(f.Type.Elem(), field+"[]")
			}
		}
	}
	return b.String()
}

// Every field describes itself, and says what is a secret.
func TestFieldsAreDescribed(t *testing.T) {
	var check func(typ reflect.Type, path string)
	check = func(typ reflect.Type, path string) {
		for f := range typ.Fields() {
			name := join(path, f.Tag.Get("yaml"))
			if doc := f.Tag.Get("doc"); doc == "" || !strings.HasSuffix(doc, ".") && !strings.HasSuffix(doc, ",") {
				t.Errorf("%s has the description %q", name, doc)
			}
			if strings.Contains(name, "secret") || strings.HasSuffix(name, "password") || strings.HasSuffix(name, "token") {
				if f.Tag.Get("secret") != "true" {
					t.Errorf("%s is no secret", name)
				}
			}
			elem := f.Type
			if elem.Kind() == reflect.Slice {
				elem = elem.Elem()
			}
			if elem.Kind() == reflect.Struct {
				check(elem, name)
			}
		}
	}
	check(reflect.TypeFor[Config](), "")
}

// compiled is the schema as an editor has it.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := json.Marshal(Schema())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// The schema accepts what the program accepts, and names the field of what it does not.
func TestSchema(t *testing.T) {
	schema := compiled(t)
	validate := func(text string) error {
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(doc)
	}
	text, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(string(text)); err != nil {
		t.Errorf("the example: %v", err)
	}
	for _, good := range []string{
		"receiver:\n", "receiver: {keys: [{project: a, sha256: b}]}", "batcher: {roll_age: 1m30s, max_disk: 4096}",
		"batcher: {roll_age: '${AGE}', max_disk: '${DISK}', roll_rows: '${ROWS}', format: '${FORMAT}'}",
		"clickhouse: {tls: true}", "clickhouse: {tls: {enabled: true, ca: x}}", "storage: {path_style: '${STYLE}'}",
		"imports: [{prefix: events/a/, name: [a, b], user_id: u}]", "llm: {prices: [{model: a, input: 1, cached_input: 0.5}]}",
		"sweep: {full_every: 0}", "receiver: {blob_threshold: 0}",
	} {
		if err := validate(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"reciever: {}":                                 "reciever",
		"batcher: {rollage: 5s}":                       "rollage",
		"batcher: {roll_age: 5}":                       "/batcher/roll_age",
		"batcher: {roll_age: soon}":                    "/batcher/roll_age",
		"batcher: {max_disk: 8GB}":                     "/batcher/max_disk",
		"batcher: {format: orc}":                       "/batcher/format",
		"batcher: {uploads: 0}":                        "/batcher/uploads",
		"clickhouse: {addresses: '127.0.0.1:9000'}":    "/clickhouse/addresses",
		"clickhouse: {tls: yes please}":                "/clickhouse/tls",
		"receiver: {keys: [{projekt: a}]}":             "projekt",
		"receiver: 5":                                  "/receiver",
		"imports: [{prefix: events/a/, name: {a: b}}]": "/imports/0/name",
	} {
		if err := validate(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error at %s", bad, err, want)
		}
	}
}
