package operate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
)

func rolledUp() *world {
	w := newWorld()
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	w.rollupDays = []clickhouse.RollupDay{
		{Day: day(1), Refreshed: day(2), Rows: 5},
		{Day: day(2), Refreshed: day(3), Rows: 7, Due: true},
		{Day: day(4), Due: true},
	}
	return w
}

func TestRollupsList(t *testing.T) {
	got, err := command(t, rolledUp().operator(), "rollups list", "--name", "daily_users")
	if err != nil {
		t.Fatal(err)
	}
	want := "NAME DAYS FIRST LAST ROWS DUE REFRESHED daily_users 2 2026-11-01 2026-11-02 12 2 2026-11-03 00:00:00"
	if diff := cmp.Diff(want, strings.Join(strings.Fields(got), " ")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, err := command(t, rolledUp().operator(), "rollups list", "--name", "nothing"); err == nil ||
		!strings.Contains(err.Error(), "daily_users, daily_sessions, llm_daily") {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestRollupsRefresh(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"daily_users 2026-11-04", "daily_users 2026-11-02", "daily_users done"}},
		{[]string{"--from", "2026-10-30", "--to", "2026-11-01"},
			[]string{"daily_users 2026-11-01", "daily_users 2026-10-31", "daily_users 2026-10-30"}},
	} {
		w := rolledUp()
		if _, err := command(t, w.operator(), "rollups refresh", append(tt.args, "--name", "daily_users")...); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, w.computed); diff != "" {
			t.Errorf("%v: -want +got\n%s", tt.args, diff)
		}
	}
	for _, args := range [][]string{{"--to", "2026-11-01"}, {"--from", "yesterday"}, {"--from", "2026-11-02", "--to", "2026-11-01"}} {
		if _, err := command(t, rolledUp().operator(), "rollups refresh", args...); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

// A late day is computed at limited intervals, and stays due until then.
func TestLateDaysWait(t *testing.T) {
	w := rolledUp()
	w.rollupDays[1].Refreshed = time.Now().Add(-time.Minute)
	o := w.operator()
	err := RefreshRollup(t.Context(), clickhouse.Rollup{Name: "r"}, RefreshOptions{Table: o.Table, Late: time.Hour,
		Done: func(string, time.Time, uint64, time.Duration) error { return nil }})
	if diff := cmp.Diff([]string{"r 2026-11-04"}, w.computed); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
}

// beating is a claim that counts its renewals, and is lost after some.
type beating struct {
	claim
	renewed, released, lostAfter int
}

func (b *beating) Renew(context.Context) (bool, error) {
	b.renewed++
	return b.renewed <= b.lostAfter, nil
}

func (b *beating) Release(context.Context) error {
	b.released++
	return nil
}

// A statement may take longer than the claim's TTL. If the claim is lost, the refresh ends.
func TestClaimIsRenewed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		kept := &beating{lostAfter: 1000}
		err := WhileHeld(t.Context(), kept, func(ctx context.Context) error { return retry.Sleep(ctx, 10*RollupsClaimTTL) })
		if err != nil || kept.renewed < 30 || kept.released != 1 {
			t.Errorf("%v, %+v, want 30 renewals and more, and one release", err, kept)
		}
		lost, began := &beating{lostAfter: 2}, time.Now()
		err = WhileHeld(t.Context(), lost, func(ctx context.Context) error { return retry.Sleep(ctx, time.Hour) })
		if took := time.Since(began); !errors.Is(err, ErrClaimLost) || took > RollupsClaimTTL {
			t.Errorf("%v after %s, want %v", err, took, ErrClaimLost)
		}
	})
	w := rolledUp()
	w.claimed = map[string]bool{RollupsClaim: true}
	_, err := command(t, w.operator(), "rollups refresh")
	wantError(t, err, "rollups are being refreshed by loader-1, since noon; run the command again when it has ended", "beside another")
}

// Clients' clocks may be decades ahead. Such days wait until they come.
func TestDaysAheadWait(t *testing.T) {
	w := rolledUp()
	ahead := time.Now().UTC().AddDate(0, 0, 4).Truncate(24 * time.Hour)
	w.rollupDays = append(w.rollupDays, clickhouse.RollupDay{Day: ahead, Due: true})
	if _, err := command(t, w.operator(), "rollups refresh", "--name", "daily_users"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"daily_users 2026-11-04", "daily_users 2026-11-02"}, w.computed); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	got, err := command(t, w.operator(), "rollups list", "--name", "daily_users")
	if err != nil || !strings.Contains(got, " 2  2026-11-03") {
		t.Errorf("want 2 days due, without the one ahead: %v\n%s", err, got)
	}
}

func TestRollupsOfTheConfiguration(t *testing.T) {
	cfg := config.Default()
	for name, want := range map[string]string{"mine": "", "daily_users": "choose another name"} {
		cfg.ClickHouse.Rollups = []config.Rollup{{Name: name, Key: "project", Select: "SELECT {day:Date} AS day, project FROM events"}}
		all, err := Rollups(cfg)
		if want == "" && (err != nil || all[len(all)-1].Name != "mine") || want != "" && (err == nil ||
			!strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg.ClickHouse.Rollups[0].Select = "SELECT 1"
	if _, err := Rollups(cfg); err == nil || !strings.Contains(err.Error(), "{day:Date}") {
		t.Errorf("a rollup without a day: %v", err)
	}
}
