package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Server is the ClickHouse under test.
type Server struct {
	HTTP     string // URL
	Native   string // host:port
	User     string
	Password string
	Database string
}

// Answer is a query's result and cost.
type Answer struct {
	Rows   [][]any // with json.Number for numbers
	Took   time.Duration
	Read   uint64 // rows
	Bytes  uint64 // read
	Memory uint64 // peak, bytes
}

// settings are sent with every query. The condition cache would let a repeated query read less than the first. The
// summary is complete only if the server waits for the query's end.
var settings = url.Values{
	"use_query_condition_cache": {"0"}, "wait_end_of_query": {"1"}, "default_format": {"JSONCompactEachRow"},
	"output_format_json_quote_64bit_integers": {"0"}, "max_execution_time": {"600"},
}

// Query runs one statement.
func (s Server) Query(ctx context.Context, sql string) (a Answer, err error) {
	query := url.Values{"database": {s.Database}}
	for name, value := range settings {
		query[name] = value
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.HTTP+"/?"+query.Encode(), strings.NewReader(sql))
	if err != nil {
		return a, err
	}
	req.SetBasicAuth(s.User, s.Password)
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	a.Took = time.Since(began)
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s\n%s", bytes.TrimSpace(text), sql)
	}
	var summary struct {
		Read   uint64 `json:"read_rows,string"`
		Bytes  uint64 `json:"read_bytes,string"`
		Memory uint64 `json:"memory_usage,string"`
	}
	if err := json.Unmarshal([]byte(resp.Header.Get("X-ClickHouse-Summary")), &summary); err != nil {
		return a, fmt.Errorf("the server's summary %q: %w", resp.Header.Get("X-ClickHouse-Summary"), err)
	}
	a.Read, a.Bytes, a.Memory = summary.Read, summary.Bytes, summary.Memory
	a.Rows, err = decode(text)
	return a, err
}

func decode(text []byte) (rows [][]any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		var row []any
		if err := d.Decode(&row); errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return nil, fmt.Errorf("answer %.200q: %w", text, err)
		}
		rows = append(rows, row)
	}
}

// One runs a statement with a single value as answer, and returns it as text.
func (s Server) One(ctx context.Context, sql string) (string, error) {
	a, err := s.Query(ctx, sql)
	if err != nil {
		return "", err
	}
	if len(a.Rows) != 1 || len(a.Rows[0]) != 1 {
		return "", fmt.Errorf("%d rows instead of one value:\n%s", len(a.Rows), sql)
	}
	return fmt.Sprint(a.Rows[0][0]), nil
}
