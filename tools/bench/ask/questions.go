package ask

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed questions.sql
var questionsFile string

// Question is a question of questions.sql.
type Question struct {
	Name        string
	Before      string
	After       string // empty: same as Before
	Truth       string
	Check       string // asked instead when answers are compared; empty: the question itself
	Most        time.Duration
	Approximate float64
	Scale       bool
}

// usual is the default of Most.
const usual = 500 * time.Millisecond

// Questions reads questions.sql.
func Questions() (all []Question, err error) {
	for i, block := range strings.Split(questionsFile, "-- question ")[1:] {
		q, err := parseQuestion(block)
		if err != nil {
			return nil, fmt.Errorf("questions.sql: question %d, %q: %w", i+1, q.Name, err)
		}
		all = append(all, q)
	}
	return all, nil
}

func parseQuestion(block string) (q Question, err error) {
	name, block, _ := strings.Cut(block, "\n")
	q = Question{Name: name, Most: usual}
	statements := map[string]string{}
	now := ""
	for line := range strings.Lines(block) {
		option, is := strings.CutPrefix(line, "-- ")
		if !is {
			statements[now] += line
			continue
		}
		word, value, _ := strings.Cut(strings.TrimSpace(option), " ")
		switch word {
		case "before", "after", "truth", "all", "check":
			now = word
		case "scale":
			q.Scale = true
		case "most", "approximate":
			f, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return q, fmt.Errorf("%s: %w", word, err)
			}
			if word == "most" {
				q.Most = time.Duration(f * float64(time.Millisecond))
			} else {
				q.Approximate = f
			}
		default:
			return q, fmt.Errorf("unknown option %q", word)
		}
	}
	of := func(statement, table string) string {
		text := statements[statement]
		if text == "" {
			text = strings.ReplaceAll(statements["all"], "{T}", table)
		}
		return strings.TrimSpace(text)
	}
	q.Before, q.After, q.Truth = of("before", "events FINAL"), of("after", "events_once"), of("truth", "truth.events")
	q.Check = strings.TrimSpace(statements["check"])
	if q.Before == "" && q.After == "" || q.Truth == "" {
		return q, fmt.Errorf("has the statements %q", slices.Sorted(maps.Keys(statements)))
	}
	if q.After == "" {
		q.After = q.Before
	}
	return q, nil
}

// checked returns the statement whose answer is compared.
func (q Question) checked(ask string) string {
	if q.Check != "" {
		ask = strings.ReplaceAll(q.Check, "{ask}", ask)
	}
	return exact(ask)
}

// exact makes quantiles exact: sampled ones depend on the order of rows.
func exact(sql string) string { return strings.ReplaceAll(sql, "quantiles(", "quantilesExact(") }
