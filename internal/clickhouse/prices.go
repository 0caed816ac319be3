package clickhouse

import (
	"context"
	"slices"
)

// Price is the cost of a model's calls, in USD per million tokens.
type Price struct {
	Model    string // a `*` matches anything
	Provider string // empty: any
	Input    float64
	Cached   *float64 // nil: as Input
	Output   float64
}

func (p Price) equal(q Price) bool {
	cached := p.Cached == q.Cached || p.Cached != nil && q.Cached != nil && *p.Cached == *q.Cached
	p.Cached, q.Cached = nil, nil
	return p == q && cached
}

// SetPrices replaces the rows of llm_prices, and reports whether they changed.
func (db *DB) SetPrices(ctx context.Context, prices []Price) (changed bool, err error) {
	var was []Price
	var p Price
	err = db.each(ctx, "read llm_prices", []any{&p.Model, &p.Provider, &p.Input, &p.Cached, &p.Output}, func() error {
		was = append(was, p)
		return nil
	}, "SELECT model, provider, input, cached_input, output FROM llm_prices ORDER BY position")
	if err != nil || slices.EqualFunc(was, prices, Price.equal) {
		return false, err
	}
	if err := db.exec(ctx, "empty llm_prices", "TRUNCATE TABLE llm_prices"); err != nil || len(prices) == 0 {
		return err == nil, err
	}
	err = db.insert(ctx, "write llm_prices",
		"INSERT INTO llm_prices (model, provider, input, cached_input, output, position)",
		func(row func(...any) error) error {
			for i, p := range prices {
				if err := row(p.Model, p.Provider, p.Input, p.Cached, p.Output, uint32(i)); err != nil {
					return err
				}
			}
			return nil
		})
	return err == nil, err
}
