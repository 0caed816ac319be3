package page

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// Prometheus answers queries by the HTTP API of a server.
func Prometheus(server string) Source {
	return func(query string, w Window) ([]Series, error) {
		resp, err := http.PostForm(server+"/api/v1/query_range", url.Values{"query": {query},
			"start": {fmt.Sprint(w.From.Unix())}, "end": {fmt.Sprint(w.To().Unix())}, "step": {fmt.Sprint(w.Step.Seconds())}})
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		var answer struct {
			Error string
			Data  struct {
				Result []struct {
					Metric map[string]string
					Values [][2]any // Unix time, and the value as text
				}
			}
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		if answer.Error != "" {
			return nil, fmt.Errorf("%s: %s", query, answer.Error)
		}
		var all []Series
		for _, r := range answer.Data.Result {
			s := Series{Labels: r.Metric, Values: slices.Repeat([]float64{math.NaN()}, w.N)}
			for _, pair := range r.Values {
				at, isTime := pair[0].(float64)
				text, isText := pair[1].(string)
				v, err := strconv.ParseFloat(text, 64)
				if !isTime || !isText || err != nil {
					return nil, fmt.Errorf("%s: answer has %v", query, pair)
				}
				if i := int(math.Round((at - float64(w.From.Unix())) / w.Step.Seconds())); i >= 0 && i < w.N && !math.IsInf(v, 0) {
					s.Values[i] = v
				}
			}
			all = append(all, s)
		}
		return all, nil
	}
}
