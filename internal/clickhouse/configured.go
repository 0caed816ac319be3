package clickhouse

import (
	"context"
	"fmt"
	"slices"
)

// What `setup` makes of the configuration, beside the files.

// Price is what calls of models cost, in USD per million tokens.
type Price struct {
	Model    string // a `*` stands for anything
	Provider string // empty: any
	Input    float64
	Cached   *float64 // nil: as Input
	Output   float64
}

// SetPrices makes the list that of llm_prices, whole, and tells whether it was another.
func (db *DB) SetPrices(ctx context.Context, prices []Price) (changed bool, err error) {
	rows, err := db.conn.Query(ctx, "SELECT model, provider, input, cached_input, output FROM llm_prices ORDER BY position")
	if err != nil {
		return false, fmt.Errorf("read llm_prices: %w", class(err))
	}
	defer rows.Close()
	var was []Price
	for rows.Next() {
		var p Price
		if err := rows.Scan(&p.Model, &p.Provider, &p.Input, &p.Cached, &p.Output); err != nil {
			return false, fmt.Errorf("read llm_prices: %w", class(err))
		}
		was = append(was, p)
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("read llm_prices: %w", class(err))
	}
	same := func(a, b Price) bool {
		cached := a.Cached == b.Cached || a.Cached != nil && b.Cached != nil && *a.Cached == *b.Cached
		a.Cached, b.Cached = nil, nil
		return a == b && cached
	}
	if slices.EqualFunc(was, prices, same) {
		return false, nil
	}
	if err := db.conn.Exec(ctx, "TRUNCATE TABLE llm_prices"); err != nil {
		return false, fmt.Errorf("empty llm_prices: %w", class(err))
	}
	if len(prices) == 0 {
		return true, nil
	}
	batch, err := db.conn.PrepareBatch(ctx, "INSERT INTO llm_prices (model, provider, input, cached_input, output, position)")
	if err != nil {
		return false, fmt.Errorf("write llm_prices: %w", class(err))
	}
	defer batch.Abort() // nothing, where it was sent
	for i, p := range prices {
		if err := batch.Append(p.Model, p.Provider, p.Input, p.Cached, p.Output, uint32(i)); err != nil {
			return false, fmt.Errorf("write llm_prices: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return false, fmt.Errorf("write llm_prices: %w", class(err))
	}
	return true, nil
}
