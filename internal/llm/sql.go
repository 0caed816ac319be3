package llm

import (
	"fmt"
	"strings"
)

// This file writes expressions of ClickHouse's SQL. Paths are below properties.
//
// An expression reads a path by getSubcolumn, not by properties.path. The two mean the
// same, but a lambda can have the former of its parameter: see callColumn.

const (
	ofProperties = "getSubcolumn(properties, '"
	ofParameter  = "getSubcolumn(p, '"
)

func subcolumn(name string) string { return ofProperties + name + "')" }

// arrays names the arrays of a path as subcolumns do.
func arrays(path string) string { return strings.ReplaceAll(path, "[]", ".:`Array(JSON)`") }

// value is that at a path, of any type but an object.
func value(path string) string { return subcolumn(arrays(path)) }

// typed returns a value of that type, NULL: none.
func typed(path, kind string) string { return subcolumn(arrays(path) + ".:`" + kind + "`") }

// member is a text in an object e of an array, in a lambda. A mutation, as DELETE is,
// cannot resolve e.name there.
func member(path string) string { return "getSubcolumn(e, '" + path + ".:`String`')" }

// tree is an object.
func tree(path string) string {
	first, rest, nested := strings.Cut(path, ".")
	if nested {
		rest = "." + rest
	}
	return subcolumn("^`" + first + "`" + rest)
}

// text returns the text at that path, NULL: none.
func text(path string) string { return typed(path, "String") }

// filled returns the text at that path, empty: none.
func filled(path string) string { return "ifNull(" + text(path) + ", '')" }

// loose is a text, or another value as text.
func loose(path string) string {
	return "accurateCastOrNull(" + value(path) + ", 'String')"
}

// number reads a number from its text, so that true is none.
func number(path string) string { return "toFloat64OrNull(" + loose(path) + ")" }

// firstText is a text, or the first of several. Spring AI sends the several as JSON.
func firstText(path string) string {
	if strings.Contains(path, "[]") {
		return "nullIf(" + text(path) + "[1], '')"
	}
	t := text(path)
	return typed(path, "Array(Nullable(String))") + "[1], " +
		"nullIf(if(startsWith(" + t + ", '[\"'), JSONExtractString(assumeNotNull(" + t + "), 1), " + t + "), '')"
}

// body is a text, or any other value as JSON.
func body(path string) string {
	return "nullIf(" + text(path) + ", ''), toJSONString(" + value(path) + "), nullIf(toJSONString(" + tree(path) +
		"), '{}')"
}

// object returns an object as JSON. A text is read as JSON. Empty: none.
func object(path string) string {
	return "ifNull(coalesce(" + text(path) + ", nullIf(toJSONString(" + tree(path) + "), '{}')), '')"
}

// milliseconds is a time since 1970: a text in any usual form, also within the
// quotes of JSON, or a number of seconds or milliseconds.
func milliseconds(path string) string {
	n := number(path)
	return "multiIf(" + n + " BETWEEN 1e8 AND 1e11, 1000 * " + n + ", " + n + " BETWEEN 1e11 AND 1e14, " + n + ", " +
		"toUnixTimestamp64Micro(parseDateTime64BestEffortOrNull(trim(BOTH '\"' FROM " + text(path) + "), 6, 'UTC')) / 1000)"
}

// present reports whether one of the paths has a value.
func present(paths []string) string {
	all := make([]string, len(paths))
	for i, p := range paths {
		all[i] = value(p) + " IS NOT NULL"
	}
	return "(" + strings.Join(all, " OR ") + ")"
}

func coalesce(expressions []string) string {
	return "coalesce(" + strings.Join(expressions, ", ") + ")"
}

func list(words []string) string { return "('" + strings.Join(words, "', '") + "')" }

// amount is the first of the numbers that a cost or a time can be.
func amount(numbers []string) string {
	return "arrayFirstOrNull(n -> n BETWEEN 0 AND 1e12, [" + strings.Join(numbers, ", ") + "])"
}

// firstObject is the first object that there is at these paths.
func firstObject(roots ...string) string {
	var all []string
	for _, root := range roots {
		all = append(all, "nullIf("+object(root)+", '')")
	}
	return coalesce(append(all, "''"))
}

func paths(f Field) (all []string) {
	for _, n := range Names {
		if n.Field == f {
			all = append(all, n.Path)
		}
	}
	return all
}

func mapped(paths []string, expression func(path string) string) []string {
	all := make([]string, len(paths))
	for i, p := range paths {
		all[i] = expression(p)
	}
	return all
}

func each(f Field, expression func(path string) string) []string { return mapped(paths(f), expression) }

// objects is an array of the usage objects at these paths, as JSON.
func objects(roots ...string) string {
	return "arrayFilter(o -> o != '', [" + strings.Join(mapped(roots, object), ", ") + "])"
}

// counted are the fields that are counts of tokens, with their columns.
var counted = []struct {
	field  Field
	column string
}{
	{InputTokens, "tokens_in"}, {OutputTokens, "tokens_out"}, {TotalTokens, "tokens_all"},
	{Cached, "tokens_cached"}, {CacheWrite, "tokens_written"}, {Reasoning, "tokens_reasoning"},
}

// directCounts are the counts of an event's own names.
func directCounts() (columns []string) {
	for _, c := range counted {
		numbers := each(c.field, number)
		for _, d := range Details {
			if d.Count == c.field { // any quote is around the key
				numbers = append(numbers, "toFloat64OrNull(extract(ifNull("+text(d.Path)+", ''), '."+d.Key+".: *([0-9]+)'))")
			}
		}
		columns = append(columns, "arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), ["+
			strings.Join(numbers, ", ")+"])")
	}
	return columns
}

// leaves are the members of an object and of those within it, by their path.
func leaves(members string) string {
	return "arrayConcat(" + members +
		", arrayFlatten(arrayMap(m -> arrayMap(n -> (concat(m.1, '.', n.1), n.2), JSONExtractKeysAndValuesRaw(m.2)), " +
		"arrayFilter(m -> startsWith(m.2, '{'), " + members + "))))"
}

// order is the order of an object's raw counts.
var order = []struct {
	count Field
	kind  Kind
}{
	{InputTokens, Whole}, {InputTokens, Plain}, // 1, 2
	{OutputTokens, Whole}, {OutputTokens, Plain}, // 3, 4
	{TotalTokens, Plain},              // 5
	{Cached, Plain}, {Cached, Beside}, // 6, 7
	{CacheWrite, Plain}, {CacheWrite, Beside}, // 8, 9
	{Reasoning, Plain}, {Reasoning, Beside}, // 10, 11
	{UsageCost, Plain}, {InputCost, Plain}, {OutputCost, Plain}, // 12, 13, 14
}

// A slot is the place of a raw count in order, and behind it the rank of a name
// among all.
const (
	ranks     = 1000
	firstCost = 12
)

// slots finds the members that are counts, the first by rank first. Tokens are
// whole and at most 1e9, costs at most 1e12.
func slots(members string) string {
	var names, numbers []string
	for i, o := range order {
		for rank, m := range Members {
			if m.Count == o.count && m.Kind == o.kind {
				names = append(names, m.Path)
				numbers = append(numbers, fmt.Sprint((i+1)*ranks+rank))
			}
		}
	}
	return fmt.Sprintf(
		"arraySort(arrayFilter(s -> s.1 > 0 AND if(s.1 >= %d, s.2 BETWEEN 0 AND 1e12, s.2 BETWEEN 0 AND 1e9 AND s.2 = "+
			"floor(s.2)), "+
			"arrayMap(m -> (transform(m.1, ['%s'], [%s], 0), ifNull(toFloat64OrNull(trim(BOTH '\"' FROM m.2)), -1)), %s)))",
		firstCost*ranks, strings.Join(names, "', '"), strings.Join(numbers, ", "), members)
}

func rawCounts() string {
	var all []string
	for i := range order {
		all = append(all, fmt.Sprintf(
			"arrayFirstOrNull(v -> 1, arrayMap(v -> v.2, arrayFilter(v -> intDiv(v.1, %d) = %d, s)))", ranks, i+1))
	}
	return strings.Join(all, ", ")
}

// normalized returns a tuple of input, output, total, cached, written and reasoning tokens from the raw counts r. A
// part next to the input or output is added to it, unless the object's total shows that it is already included.
func normalized() string {
	const (
		in, out   = "coalesce(r.1, r.2)", "coalesce(r.3, r.4)"
		summed    = "ifNull(r.5 = " + in + " + " + out + ", 0)"
		cached    = "if(ifNull(r.6, 0) > 0, 0, ifNull(r.7, 0))"
		written   = "if(ifNull(r.8, 0) > 0, 0, ifNull(r.9, 0))"
		reasoning = "if(ifNull(r.10, 0) > 0, 0, ifNull(r.11, 0))"
	)
	with := func(base, whole, beside string) string {
		return "if(" + base + " IS NULL AND " + beside + " = 0, NULL, ifNull(" + base + ", 0) + if(" + whole +
			" IS NOT NULL OR " + summed + ", 0, " + beside + "))"
	}
	larger := func(a, b string) string {
		return "if(" + a + " IS NULL AND " + b + " IS NULL, NULL, greatest(ifNull(" + a + ", 0), ifNull(" + b + ", 0)))"
	}
	return strings.Join([]string{
		with(in, "r.1", "("+cached+" + "+written+")"), with(out, "r.3", reasoning), "r.5",
		larger("r.6", "r.7"), larger("r.8", "r.9"), larger("r.10", "r.11"),
	}, ", ")
}

// usage is an array of an event's tokens, in the order of counted, its own cost, and
// that of its usage objects. An event of Langfuse's ingestion API has usage objects alone.
//
// A count of the event's own names has precedence. Otherwise it is that of the first
// usage object that has it; within an object all counts are of one convention, so what
// contains what is decided there. The event's own cost is one of its names, or the
// total or sum of the parts of its cost.
//
// Names are constants that transform looks up, not an expression each: ClickHouse
// analyzes a lambda's expression more than once.
func usage() string {
	const first = "arrayFirstOrNull(n -> n IS NOT NULL, arrayMap(c -> c.%d, counts))"
	ingested := "name IN " + list(langfuseEvents)
	objects := "if(" + ingested + ", " + objects("usageDetails", "usage") + ", " + objects(paths(Usage)...) + ")"
	var columns []string
	for i, direct := range directCounts() {
		columns = append(columns, fmt.Sprintf("coalesce(if("+ingested+", NULL, %s), "+first+")", direct, i+1))
	}
	columns = append(columns, ownCosts(ingested), fmt.Sprintf(first, len(columns)+1))
	counts := "arrayMap(r -> (" + normalized() + ", coalesce(r.12, r.13 + r.14)), arrayMap(s -> (" + rawCounts() +
		"), arrayMap(l -> " + slots("l") + ", arrayMap(m -> " + leaves("m") +
		", arrayMap(o -> JSONExtractKeysAndValuesRaw(o), " + objects + ")))))"
	// SQL has no LET within an expression.
	return "arrayMap(counts -> [" + strings.Join(columns, ", ") + "], [" + counts + "])[1]"
}

// ownCosts is the first of an event's own cost, the total of its parts, and their sum.
func ownCosts(ingested string) string {
	costParts := "if(" + ingested + ", " + object("costDetails") + ", " + firstObject(paths(CostParts)...) + ")"
	parts := `arrayFilter(p -> p.2 BETWEEN 0 AND 1e12, arrayMap(m -> (m.1,
        ifNull(toFloat64OrNull(trim(BOTH '"' FROM m.2)), -1)), JSONExtractKeysAndValuesRaw(` + costParts + `)))`
	total := "arrayFirstOrNull(n -> 1, arrayMap(p -> p.2, arrayFilter(p -> p.1 IN ('total', 'total_cost', 'totalCost'), " +
		parts + ")))"
	return "coalesce(if(" + ingested + ", NULL, " + amount(each(Cost, number)) + "), " + total +
		", if(empty(" + parts + "), NULL, arraySum(p -> p.2, " + parts + ")))"
}
