package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
)

type propertyFilter struct {
	Project string `json:"project,omitempty" param:"project" usage:"properties of this project only"`
	Name    string `json:"name,omitempty" param:"name" usage:"properties of events of this name only"`
}

// propertyLine is a property and the problem with it.
type propertyLine struct {
	clickhouse.Property
	Warning string `json:"warning,omitempty"`
}

type suggestParams struct {
	Project string `json:"project,omitempty" param:"project" usage:"judge by the events of this project only"`
}

// suggestedColumns are all of one answer.
type suggestedColumns struct {
	Columns []clickhouse.Suggestion `json:"columns"`
}

func propertyOperations() []Operation {
	return []Operation{
		{
			Name: "properties", method: http.MethodGet, path: "/v1/properties", params: &propertyFilter{},
			item:  propertyLine{},
			Short: "list the properties that events have, and their types",
			About: "Loaders count the properties while they load. The counts are approximate: an object that is\n" +
				"delivered again or replaced counts again. Shares are of the values of a path.",
			header: []string{"PROJECT", "NAME", "PATH", ">EVENTS", "TYPES", "FIRST", "LAST", "EXAMPLE", "WARNING"},
			row:    rows(propertyRow),
			kind: func(item any) string {
				if item.(*propertyLine).Warning != "" {
					return "warned"
				}
				return "fine"
			},
			sum: func(w io.Writer, _ any, n map[string]int) {
				fmt.Fprintf(w, "%s, %s\n", show.Plural(n[""], "property"), show.Plural(n["warned"], "warning"))
			},
			run: runs(func(ctx context.Context, o *Operator, f *propertyFilter, out sink) error {
				return o.Table.Properties(ctx, f.Project, f.Name, func(p clickhouse.Property) error {
					return out.item(propertyLine{p, p.Warning()})
				})
			}),
		},
		{
			Name: "columns suggest", method: http.MethodGet, path: "/v1/columns/suggestions", params: &suggestParams{},
			item:  suggestedColumns{},
			Short: "propose clickhouse.columns by the properties that events have",
			About: "It proposes paths that are in 1 % of the events, or in half of the events of a name, and whose\n" +
				"values fit one type. Numbers are Float64 if a float was ever seen, else Int64. Copy what you want\n" +
				"into the configuration; then `penstock setup` adds the columns.",
			print: prints(printSuggested), run: runs(suggestColumns),
		},
	}
}

func propertyRow(p *propertyLine) []string {
	var types []string
	example := "-"
	for i, t := range p.Types {
		text := t.Type
		if len(p.Types) > 1 {
			text += " " + percent(t.Share)
		}
		types = append(types, text)
		if t.Example != nil && (i == 0 || example == "-") {
			example = strconv.Quote(*t.Example)
			if t.Type != "String" {
				example = *t.Example
			}
		}
	}
	return []string{p.Project, p.Name, p.Path, strconv.FormatUint(p.Events, 10), strings.Join(types, ", "),
		p.First.UTC().Format(time.DateTime), p.Last.UTC().Format(time.DateTime), example, p.Warning}
}

// percent formats a share. A small one does not become 0.
func percent(share float64) string {
	switch p := 100 * share; {
	case p < 0.1:
		return "<0.1 %"
	case p > 99.9 && p < 100:
		return ">99.9 %"
	case p < 1, p > 99 && p < 100:
		return fmt.Sprintf("%.1f %%", p)
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

func suggestColumns(ctx context.Context, o *Operator, f *suggestParams, out sink) error {
	have, err := o.Config.TableColumns()
	if err != nil {
		return err
	}
	found, err := o.Table.SuggestColumns(ctx, pipeline.Events.Name, f.Project, have)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return errors.New("the catalogue has no property that is frequent, of one type, and without a column yet; " +
			"`penstock properties` lists what it has")
	}
	return out.item(suggestedColumns{found})
}

// printSuggested prints YAML to paste into the configuration.
func printSuggested(w io.Writer, found *suggestedColumns) error {
	fmt.Fprint(w, "clickhouse:\n  columns:\n")
	for _, c := range found.Columns {
		path := ""
		if c.Path != c.Name {
			path = "path: " + yamlText(c.Path) + ", "
		}
		if _, err := fmt.Fprintf(w, "    - {name: %s, %stype: %s} # %s\n", c.Name, path, c.Type,
			strings.Join(strings.Fields(c.Why), " ")); err != nil {
			return err
		}
	}
	return nil
}

// yamlText quotes a text unless it is plain in YAML's flow style.
func yamlText(s string) string {
	for _, r := range s {
		if r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return strconv.Quote(s)
		}
	}
	return s
}
