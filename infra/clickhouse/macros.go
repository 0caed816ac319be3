package clickhouse

import (
	"fmt"
	"regexp"
	"strings"
	"text/template"
)

// Purchases have one of these names. Their amount is the first of these properties that is a number.
var (
	purchaseNames = []string{"purchase", "Order Completed", "order_completed", "in_app_purchase"}
	amounts       = []string{"revenue", "price", "amount", "value", "total"}
)

// Expand replaces the macros of a file. A server has SQL functions for all its databases, and may have others of the
// same names. So views and rollups contain the bodies instead, which are written once, in functions/.
//
//	{{num "properties.price"}}   num(properties.price)
//	{{text "properties.item"}}   text(properties.item)
//	{{purchase}}                 whether the event is a purchase
//	{{amount}}                   the amount of a purchase; NULL: it has none
func Expand(text string) (string, error) {
	t, err := template.New("").Funcs(template.FuncMap{"num": Num, "text": Text, "purchase": purchase, "amount": amount}).
		Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, nil)
	return b.String(), err
}

// Num is the body of the SQL function num for an expression.
func Num(expression string) (string, error) { return apply("num", expression) }

// Text is the body of the SQL function text for an expression.
func Text(expression string) (string, error) { return apply("text", expression) }

// Function is an SQL function, as a lambda.
func Function(name string) (string, error) {
	file, err := functions.ReadFile("functions/" + name + ".sql")
	if err != nil {
		return "", err
	}
	text := string(file)
	return strings.TrimSpace(text[strings.Index(text, parameter):]), nil
}

const parameter = "v -> "

var variable = regexp.MustCompile(`\bv\b`)

func apply(function, expression string) (string, error) {
	text, err := Function(function)
	return variable.ReplaceAllLiteralString(strings.TrimPrefix(text, parameter), expression), err
}

func purchase() string { return "name IN ('" + strings.Join(purchaseNames, "', '") + "')" }

func amount() (string, error) {
	all := make([]string, len(amounts))
	for i, a := range amounts {
		number, err := Num("properties." + a)
		if err != nil {
			return "", err
		}
		all[i] = "\n        " + number
	}
	return fmt.Sprintf("coalesce(%s)", strings.Join(all, ",")), nil
}

// Rollup is the query of the rollup whose table has this name.
func Rollup(name string) (string, error) {
	text, err := rollups.ReadFile("rollups/" + name + ".sql")
	if err != nil {
		return "", err
	}
	return Expand(string(text))
}
