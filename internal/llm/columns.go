package llm

import (
	"fmt"
	"slices"
	"strings"
)

// A Column is a column that `penstock setup` adds to events, so that the view reads only possible calls.
type Column struct {
	Name, Type, Expression string
	Index                  string // the type of its skip index
	Comment                string
}

// Names of columns of events.
const (
	MarkColumn         = "is_llm"           // may be a call, or describes one
	TraceColumn        = "llm_trace"        // of spans, and of other events that name one
	ConversationColumn = "llm_conversation" // of possible calls
	CallColumn         = "llm"              // what the event says about its call
)

// Columns are the columns that CallsView reads. Later ones depend on earlier ones.
func Columns() []Column {
	conversation := coalesce(append(each(Conversation, loose), "session_id"))
	return []Column{
		{MarkColumn, "Bool", "(" + marks() + " OR name IN " + list(langfuseEvents) + ")", "minmax",
			"May be a call of a language model, or describe one"},
		{TraceColumn, "String", filled("trace_id"), "bloom_filter(0.01)", "properties.trace_id"},
		{ConversationColumn, "String", "if(" + MarkColumn + ", " + conversation + ", '')", "bloom_filter(0.01)",
			"Conversation of the call; see llm_calls"},
		callColumn(),
	}
}

// Marks tells which events have default values in all Columns: those without any of the
// names, and without a property at any of the paths.
func Marks() (names, paths []string) {
	for _, c := range Columns() {
		if c.Name != MarkColumn && c.Name != TraceColumn {
			continue // empty without the mark
		}
		for _, path := range strings.Split(c.Expression, ofProperties)[1:] {
			path, _, _ = strings.Cut(path, "'")
			path, _, _ = strings.Cut(path, ".:")
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return append([]string{nativeCall}, langfuseEvents...), slices.Compact(paths)
}

// nativeCall is the name of events that are calls.
const nativeCall = "llm_call"

// part is something that CallColumn says.
type part struct{ name, expression string }

// labels have few values, texts many.
func labels() []part {
	return []part{
		{"provider", "replaceRegexpOne(" + coalesce(append(each(Provider, text), "''")) +
			", '\\\\.(chat|responses|completion|embedding|messages|image|generative-ai)$', '')"},
		{"model", coalesce(append(each(Model, text), "''"))},
		{"operation", coalesce(append(each(Operation, text), "''"))},
		{"status", statusOf(failure())},
		{"finish_reason", coalesce(append(each(FinishReason, firstText), answerReason(), "''"))},
		{"source", sourceOf()},
	}
}

func texts() []part {
	return []part{
		{"call_id", coalesce(append(each(CallID, loose), "''"))}, // empty: that of the event
		{"error", failure()},
	}
}

// numbers are the counts and costs of usage, and times.
func numbers() []part {
	return append(make([]part, len(counted)+2), times()...)
}

func times() []part {
	return []part{{"latency_ms", latencyColumn()}, {"first_token_ms", firstTokenColumn()}}
}

// at is a part of CallColumn, by its place in one of its arrays.
func at(array string, parts []part, name string) string {
	for i, p := range parts {
		if p.name == name {
			return fmt.Sprintf("llm.%s[%d]", array, i+1)
		}
	}
	panic("no part " + name)
}

func expressions(parts []part) string {
	var all []string
	for _, p := range parts {
		all = append(all, p.expression)
	}
	return strings.Join(all, ", ")
}

// callColumn is a tuple of a few arrays, which queries read singly. It costs little if an event is not a call: then the
// arrays are empty. properties is a lambda's parameter, so paths are read only for events with the mark. As
// properties.path they would be read for all events of a block, at 2 µs each.
func callColumn() Column {
	const kind = "Tuple(class UInt8, span UInt64, labels Array(LowCardinality(String)), texts Array(String), " +
		"numbers Array(Nullable(Float64)))"
	span := "if(" + filled("trace_id") + " = '', 0, " + spanHash("span_id") + ")"
	call := "(" + class() + ", " + span + ", [" + expressions(labels()) + "], [" +
		expressions(texts()) + "], arrayConcat(" + usage() + ", [" + expressions(times()) + "]))"
	return Column{CallColumn, kind, "CAST(arrayMap(p -> " + strings.ReplaceAll(call, ofProperties, ofParameter) +
		", if(" + MarkColumn + ", [properties], [])), 'Array(" + kind + ")')[1]", "", "What llm_calls says of the call"}
}
