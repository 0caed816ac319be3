package peers

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// figures are the result of a peer's run.
type figures struct {
	Events int `json:"events"` // sent to the peer
	// Rows in the table, including duplicates; nil: nothing is stored.
	Rows     *uint64 `json:"rows,omitempty"`
	Distinct *uint64 `json:"distinct_event_ids,omitempty"` // of these rows
	// From the first event until the last is a row. If nothing is stored, until the last answer.
	Seconds float64 `json:"seconds"`
	// CPU of client or collector; nil: only ClickHouse runs.
	PeerCPU   *float64 `json:"peer_cpu_seconds,omitempty"`
	EngineCPU *float64 `json:"engine_cpu_seconds,omitempty"` // of ClickHouse, including merges
	PeerRSS   float64  `json:"peer_peak_rss_mib"`
	EngineRSS *float64 `json:"engine_peak_rss_mib,omitempty"`
	Retries   int64    `json:"retries"` // requests or inserts that the client repeated
}

// run is one run of a peer.
type run struct {
	Peer  string `json:"peer"`
	Run   int    `json:"run"` // from 1
	Error string `json:"error,omitempty"`
	figures
}

// summary is a peer's runs in one line: medians, but the maximum for lost and doubled. A nil figure does not apply.
type summary struct {
	Peer        string   `json:"peer"`
	Runs        int      `json:"runs"`   // completed
	Failed      int      `json:"failed"` // not completed
	Events      int      `json:"events"`
	Rows        *float64 `json:"rows"`
	Lost        *uint64  `json:"lost"`              // events without a row
	Doubled     *uint64  `json:"doubled"`           // rows beyond one for each event
	PerSecond   *float64 `json:"events_per_second"` // stored; if nothing is stored, answered
	PeerCPU     *float64 `json:"peer_cpu_seconds_per_million"`
	EngineCPU   *float64 `json:"engine_cpu_seconds_per_million"`
	PeerRSS     *float64 `json:"peer_peak_rss_mib"`
	EngineRSS   *float64 `json:"engine_peak_rss_mib"`
	MostRetries int64    `json:"retries"`
}

// summarize groups runs by peer, in the order of first appearance.
func summarize(runs []run) []summary {
	var order []string
	byPeer := map[string][]run{}
	for _, r := range runs {
		if byPeer[r.Peer] == nil {
			order = append(order, r.Peer)
		}
		byPeer[r.Peer] = append(byPeer[r.Peer], r)
	}
	var all []summary
	for _, name := range order {
		all = append(all, summarizePeer(name, byPeer[name]))
	}
	return all
}

func summarizePeer(name string, runs []run) summary {
	s := summary{Peer: name, Events: runs[0].Events}
	var rows, perSecond, peerCPU, engineCPU, peerRSS, engineRSS []float64
	for _, r := range runs {
		if r.Error != "" {
			s.Failed++
			continue
		}
		s.Runs++
		stored := float64(r.Events)
		if r.Rows != nil && r.Distinct != nil {
			stored = float64(*r.Distinct)
			rows = append(rows, float64(*r.Rows))
			s.Lost = most(s.Lost, uint64(r.Events)-min(*r.Distinct, uint64(r.Events)))
			s.Doubled = most(s.Doubled, *r.Rows-min(*r.Distinct, *r.Rows))
		}
		millions := float64(r.Events) / 1e6
		perSecond = append(perSecond, stored/r.Seconds)
		peerRSS = append(peerRSS, r.PeerRSS)
		if r.PeerCPU != nil {
			peerCPU = append(peerCPU, *r.PeerCPU/millions)
		}
		if r.EngineCPU != nil {
			engineCPU = append(engineCPU, *r.EngineCPU/millions)
		}
		if r.EngineRSS != nil {
			engineRSS = append(engineRSS, *r.EngineRSS)
		}
		s.MostRetries = max(s.MostRetries, r.Retries)
	}
	s.Rows, s.PerSecond = median(rows), median(perSecond)
	s.PeerCPU, s.EngineCPU = median(peerCPU), median(engineCPU)
	s.PeerRSS, s.EngineRSS = median(peerRSS), median(engineRSS)
	return s
}

func most(before *uint64, n uint64) *uint64 {
	if before != nil {
		n = max(n, *before)
	}
	return &n
}

// median returns the middle value, or the mean of the middle two; nil: no values.
func median(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return &sorted[middle]
	}
	return new((sorted[middle-1] + sorted[middle]) / 2)
}

// writeTable writes a line for each peer, in aligned columns.
func writeTable(w io.Writer, peers []summary) {
	table := [][]string{
		{"", "", "", "", "", "", "CPU s/M", "CPU s/M", "peak MiB", "peak MiB", "", ""},
		{"peer", "events", "rows", "lost", "doubled", "events/s", "peer", "engine", "peer", "engine", "resent", "runs"},
	}
	for _, s := range peers {
		runs := strconv.Itoa(s.Runs)
		if s.Failed > 0 {
			runs += fmt.Sprintf(", %d failed", s.Failed)
		}
		table = append(table, []string{s.Peer, strconv.Itoa(s.Events), number(s.Rows, 0), count(s.Lost), count(s.Doubled),
			number(s.PerSecond, 0),
			number(s.PeerCPU, 1), number(s.EngineCPU, 1), number(s.PeerRSS, 0), number(s.EngineRSS, 0),
			strconv.FormatInt(s.MostRetries, 10), runs})
	}
	widths := make([]int, len(table[0]))
	for _, line := range table {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range table {
		var text strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				text.WriteString(cell + pad)
			} else {
				text.WriteString("  " + pad + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(text.String(), " "))
	}
}

func number(v *float64, digits int) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', digits, 64)
}

func count(n *uint64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatUint(*n, 10)
}

// report is what --json writes.
type report struct {
	Machine struct {
		OS    string `json:"os"`
		CPU   string `json:"cpu"`
		Cores int    `json:"cores"`
	} `json:"machine"`
	Versions struct {
		Go         string `json:"go"`
		ClickHouse string `json:"clickhouse"`
		Collector  string `json:"opentelemetry_collector"`
	} `json:"versions"`
	Conns    int       `json:"connections"`
	Defaults bool      `json:"server_defaults"` // --defaults
	Peers    []summary `json:"peers"`
	Runs     []run     `json:"runs"`
}

func (b *bench) report(runs []run) report {
	r := report{Conns: b.conns, Defaults: b.defaults, Peers: summarize(runs), Runs: runs}
	r.Machine.OS, r.Machine.CPU, r.Machine.Cores = runtime.GOOS+"/"+runtime.GOARCH, cpuModel(), runtime.NumCPU()
	r.Versions.Go, r.Versions.ClickHouse, r.Versions.Collector = runtime.Version(), b.clickhouse.Version, collectorVersion
	return r
}

func writeJSON(path string, r report) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// cpuModel is the processor's name; empty: /proc/cpuinfo has none.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
