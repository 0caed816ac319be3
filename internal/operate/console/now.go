package console

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/receiver"
)

// report is the part of status that the page uses.
type report struct {
	Pipelines []struct {
		batcher.Stats
		Queue     *queue.Stats            `json:"queue"`
		Table     *clickhouse.TableStatus `json:"table"`
		Freshness *float64                `json:"freshness_seconds"`
	} `json:"pipelines"`
	Intake   receiver.Counts `json:"intake"`
	Errors   []string        `json:"errors"`
	Warnings []string        `json:"warnings"`
}

// stage is a box in the picture.
type stage struct {
	Name, Link, State string // State: ok, warn, bad
	Main, Unit        string
	Lines             [][2]string
}

// problem is a problem and its remedy.
type problem struct {
	Bad                bool
	Text, Detail, Next string
	Link               string
}

// overview is the page Now at one moment.
type overview struct {
	At       time.Time
	Stages   []stage
	Problems []problem
	intake   receiver.Counts
}

// spark is a chart of the last hour.
type spark struct {
	Name, Now, Most string
	Line, Area      string // paths of SVG, 300 × 60
	Empty           bool
}

func (c *Console) nowPart(r *http.Request) (any, error) {
	ctx := context.WithoutCancel(r.Context()) // others may share the result
	now, err := c.now.get(1500*time.Millisecond, func(before *overview, at time.Time) (*overview, error) {
		ctx, cancel := context.WithTimeout(ctx, partWait)
		defer cancel()
		return c.look(r.WithContext(ctx), before)
	})
	if err != nil {
		return nil, err
	}
	hour, hourErr := c.hour.get(15*time.Second, func([]spark, time.Time) ([]spark, error) {
		ctx, cancel := context.WithTimeout(ctx, partWait/4)
		defer cancel()
		minutes, err := c.operator.Table.Minutes(ctx)
		return sparks(minutes), err
	})
	broken, _ := c.broken.get(15*time.Second, func(uint64, time.Time) (uint64, error) {
		ctx, cancel := context.WithTimeout(ctx, partWait/4)
		defer cancel()
		return c.interrupted(r.WithContext(ctx))
	})
	data := struct {
		*overview
		Hour        []spark
		HourError   *failure
		Interrupted uint64 // tasks
	}{now, hour, nil, broken}
	if hourErr != nil {
		f := c.explain(hourErr)
		data.HourError = &f
	}
	return data, nil
}

// look collects all parts.
func (c *Console) look(r *http.Request, before *overview) (*overview, error) {
	items, failed := c.list(r, "status", url.Values{})
	if len(items) == 0 {
		return nil, failed
	}
	text, err := json.Marshal(items[0])
	if err != nil {
		return nil, err
	}
	var rep report
	if err := json.Unmarshal(text, &rep); err != nil {
		return nil, err
	}
	o := &overview{At: time.Now(), intake: rep.Intake}
	accepted, rejected := "–", "–"
	// An older reading would not give the current rate.
	if before != nil && rep.Intake.Accepted >= before.intake.Accepted && o.At.Sub(before.At) < time.Minute {
		seconds := o.At.Sub(before.At).Seconds()
		rate := func(now, then uint64) string { return rateText(float64(now-then) / seconds) }
		accepted = rate(rep.Intake.Accepted, before.intake.Accepted)
		rejected = rate(rep.Intake.Rejected+rep.Intake.Refused, before.intake.Rejected+before.intake.Refused)
	}
	o.picture(&rep, accepted, rejected)
	o.judge(&rep)
	return o, nil
}

func rateText(perSecond float64) string {
	if perSecond > 0 && perSecond < 10 && perSecond != math.Trunc(perSecond) {
		return fmt.Sprintf("%.1f", perSecond)
	}
	return countText(perSecond)
}

// picture draws the path of events.
func (o *overview) picture(rep *report, accepted, rejected string) {
	events := rep.Pipelines[0]
	wal := stage{Name: "WAL", State: "ok", Main: countText(events.ActiveRows), Unit: "events in the active batch",
		Lines: [][2]string{{"oldest", fmt.Sprintf("%.0f s", events.ActiveSeconds)},
			{"sealed batches", fmt.Sprint(events.Sealed)}, {"on disk", bytesText(events.Disk)},
			{"disk limit", bytesText(events.MaxDisk)}}}
	if events.MaxDisk > 0 && events.Disk*10 > events.MaxDisk*7 || events.Error != "" {
		wal.State = "bad"
	}
	q := stage{Name: "Queue", State: "ok", Main: "–", Unit: "there is no queue"}
	if events.Queue != nil {
		q.Main, q.Unit = countText(events.Queue.Pending), "notifications wait"
		q.Lines = [][2]string{{"in flight", countText(events.Queue.InFlight)}}
	}
	load := stage{Name: "Loaders", State: "ok", Main: "?", Unit: "rows in the last minute"}
	table := stage{Name: "ClickHouse", State: "bad", Main: "?", Unit: "rows"}
	if t := events.Table; t != nil {
		load.Main = countText(t.RowsLastMinute)
		load.Lines = [][2]string{{"objects", countText(t.ObjectsLastMinute)}, {"under way", countText(t.Loading)},
			{"dead letters", countText(t.Dead)}}
		load.Link = "letters"
		if t.Dead > 0 {
			load.State = "bad"
		}
		table = stage{Name: "ClickHouse", State: "ok", Main: countText(t.Rows), Unit: "rows"}
		fresh := "–"
		if events.Freshness != nil {
			fresh = fmt.Sprintf("%.1f s", *events.Freshness)
		}
		table.Lines = [][2]string{{"behind", fresh}, {"objects", countText(t.Objects)}, {"refused", countText(t.Refused)}}
	}
	o.Stages = []stage{
		{Name: "Receivers", Link: "live", State: "ok", Main: accepted, Unit: "events accepted a second",
			Lines: [][2]string{{"rejected/s", rejected}, {"all accepted", countText(rep.Intake.Accepted)},
				{"all rejected", countText(rep.Intake.Rejected + rep.Intake.Refused)}}},
		wal,
		{Name: "Bucket", Link: "objects", State: "ok", Main: countText(events.Stored), Unit: "objects stored since the start",
			Lines: [][2]string{{"waiting", fmt.Sprint(events.Sealed)}, {"refused", fmt.Sprint(events.Refused)}}},
		q, load, table,
	}
}

// judge lists the problems.
func (o *overview) judge(rep *report) {
	add := func(bad bool, text, next, link string) {
		o.Problems = append(o.Problems, problem{Bad: bad, Text: text, Next: next, Link: link})
	}
	for _, text := range rep.Errors {
		if p := partyOf(text); p.field != "" {
			o.Problems = append(o.Problems, problem{Bad: true, Text: p.title, Detail: text, Next: p.meanwhile})
			continue
		}
		next := "Start the part that does not answer, or fix its configuration."
		switch {
		case strings.Contains(text, "/status"):
			next = "Start this receiver or loader, or take its address out of status.admins."
		case strings.Contains(text, "NoSuchBucket") || strings.Contains(text, "does not exist"):
			next = `Run "penstock setup", or create it.`
		}
		add(true, text, next, "")
	}
	for _, text := range rep.Warnings {
		if strings.Contains(text, " is failing: ") {
			o.Problems = append(o.Problems, problem{Text: "An object is failing.", Detail: text,
				Next: "It will be tried again.", Link: "letters"})
			continue
		}
		add(false, text, "The runbook has a section about it.", "")
	}
	for _, p := range rep.Pipelines {
		if p.MaxDisk > 0 && p.Disk*10 > p.MaxDisk*7 {
			add(true, fmt.Sprintf("%s: the write-ahead log has %s of %s. At the limit, clients get 503.", p.Pipeline,
				bytesText(p.Disk), bytesText(p.MaxDisk)), "Find out why batches are not stored: look at the bucket.", "")
		}
		if p.Table == nil {
			continue
		}
		if p.Table.Dead > 0 {
			add(true, fmt.Sprintf("%s: %s in the bucket could not be loaded.", p.Pipeline, plural(p.Table.Dead, "object")),
				"Read the reason, fix it, and redrive them.", "letters")
		}
		if f := p.Freshness; f != nil && *f > 600 {
			add(true, fmt.Sprintf("%s: rows are %.0f s behind the newest accepted event.", p.Pipeline, *f),
				"See whether loaders run, and whether objects wait.", "objects?state=new")
		}
	}
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return countText(n) + " " + what + "s"
}

// sparks draws charts of the last hour.
func sparks(minutes []clickhouse.Minute) []spark {
	pick := func(name, unit string, f func(clickhouse.Minute) float64) spark {
		var values []float64
		for _, m := range minutes {
			values = append(values, f(m))
		}
		return drawn(name, unit, values)
	}
	return []spark{
		pick("Rows loaded", "rows", func(m clickhouse.Minute) float64 { return float64(m.Rows) }),
		pick("Rejected", "records", func(m clickhouse.Minute) float64 { return float64(m.Rejected) }),
		pick("Receipt to row, slowest object", "s", func(m clickhouse.Minute) float64 { return m.Seconds }),
	}
}

func drawn(name, unit string, values []float64) spark {
	const width, height = 300.0, 60.0
	s := spark{Name: name, Empty: true}
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	if len(values) < 2 || most == 0 {
		return s
	}
	s.Empty = false
	var line strings.Builder
	for i, v := range values {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&line, "%s%.1f %.1f", command, float64(i)*width/float64(len(values)-1), height-3-(height-6)*v/most)
	}
	s.Line = line.String()
	s.Area = fmt.Sprintf("%sL%.0f %.0fL0 %.0fZ", s.Line, width, height, height)
	s.Now, s.Most = rateText(values[len(values)-1])+" "+unit, rateText(most)+" "+unit
	return s
}
