package clickhouse

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/docs"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/devstack"
)

// A user with the rights that the page for one VM grants may do all that setup and loaders do.
func TestDocumentedRights(t *testing.T) {
	var grants strings.Builder
	for line := range strings.Lines(docs.Below(t, "../../docs/deploy/one-vm.md", "Rights in ClickHouse", "sql")) {
		if grant, ok := strings.CutSuffix(strings.TrimSpace(line), " TO penstock;"); ok {
			fmt.Fprintf(&grants, "<query>%s</query>", grant)
		}
	}
	c := servers.ClickHouseWith(t, devstack.ClickHouseOptions{Users: "<limited><password>secret</password><networks>" +
		"<ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota><grants>" + grants.String() +
		"</grants></limited>"})
	db, _ := setUp(t, Options{Addresses: []string{c.Addr()}, Database: "penstock", User: "limited", Password: "secret",
		Timeout: 30 * time.Second, Conns: 2})
	may := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err := db.SetFunctions(t.Context(), Functions)
	may("create functions", err)
	columns := []Column{{Name: "price", Path: "price", Type: "Float64"}}
	_, _, err = db.AddColumns(t.Context(), "events", columns)
	may("add columns", err)
	_, _, err = db.MaterializeColumns(t.Context(), "events", columns, time.Second)
	may("write columns into older parts", err)
	_, err = db.SetPrices(t.Context(), []Price{{Model: "m", Input: 1, Output: 1}})
	may("replace prices", err)
	_, err = db.CreateRollup(t.Context(), Rollup{Name: "by_name", Key: "name",
		Select: "SELECT name, {day:Date} AS day, count() AS n FROM events WHERE toDate(timestamp) = {day:Date} GROUP BY name"})
	may("create a rollup", err)

	e := event(1, `{"price":2}`)
	e.Name, e.UserID = []byte("purchase"), []byte("u")
	insert(t, db, "a", e)
	if days := refreshDue(t, db, shipped(t, "daily_users")); len(days) != 1 {
		t.Errorf("the days %q of daily_users were computed, want one", days)
	}
	may("replace rows", db.DeleteOlder(t.Context(), "events", "events/o", 1))
	trial, err := db.Try(t.Context(), "events")
	may("create a validation table", err)
	if err == nil {
		may("drop it", trial.Close(t.Context()))
	}
	may("drop examples", db.DropExamples(t.Context()))
	may("set the user that views read as", db.SetDefiner(t.Context(), Readable))
	for _, table := range []string{"events", "errors"} {
		may("check "+table, db.Check(t.Context(), table))
	}
}
