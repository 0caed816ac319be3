package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/clickhouse"
)

// TableColumns are the additional columns of events.
func (c *Config) TableColumns() ([]clickhouse.Column, error) {
	var columns []clickhouse.Column
	for i, column := range c.ClickHouse.Columns {
		if column.Path == "" {
			column.Path = column.Name
		}
		made := clickhouse.Column(column)
		if err := made.Check(); err != nil {
			return nil, fmt.Errorf("clickhouse.columns[%d]: %w", i, err)
		}
		if slices.ContainsFunc(columns, func(c clickhouse.Column) bool { return c.Name == made.Name }) {
			return nil, fmt.Errorf("clickhouse.columns[%d]: the name %q is used twice", i, made.Name)
		}
		columns = append(columns, made)
	}
	return columns, nil
}

// TableRollups are the rollups of the configuration.
func (c *Config) TableRollups() ([]clickhouse.Rollup, error) {
	var rollups []clickhouse.Rollup
	for i, r := range c.ClickHouse.Rollups {
		made := clickhouse.Rollup{Name: r.Name, Select: r.Select, Key: r.Key}
		if err := made.Check(); err != nil {
			return nil, fmt.Errorf("clickhouse.rollups[%d]: %w", i, err)
		}
		rollups = append(rollups, made)
	}
	return rollups, nil
}

// TablePrices are the prices of language models, as their table has them.
func (c *Config) TablePrices() ([]clickhouse.Price, error) {
	var prices []clickhouse.Price
	seen := map[string]bool{}
	for i, p := range c.LLM.Prices {
		if p.Model == "" || strings.ContainsFunc(p.Model+p.Provider, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf(
				"llm.prices[%d]: model %q of provider %q: want a model's name, in which * stands for anything, in ASCII and "+
					"without spaces", i, p.Model, p.Provider)
		}
		if !(p.Input >= 0 && p.Output >= 0 && (p.Cached == nil || *p.Cached >= 0)) {
			return nil, fmt.Errorf("llm.prices[%d], of %s: a price is below 0; they are USD per million tokens", i, p.Model)
		}
		if name := p.Provider + " " + p.Model; seen[name] {
			return nil, fmt.Errorf("llm.prices[%d]: %s of provider %q has a price already", i, p.Model, p.Provider)
		} else {
			seen[name] = true
		}
		prices = append(prices, clickhouse.Price(p))
	}
	return prices, nil
}
