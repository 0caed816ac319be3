package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/penstock/penstock/internal/operate"
)

// events streams live events as server-sent events. "event" has an event, "count" the number of all events.
func (c *Console) events(w http.ResponseWriter, r *http.Request, _ *session) {
	op := operate.Find("tail")
	params, err := op.Params(only(r.URL.Query(), "project", "name", "user", "session", "accepted", "rejected"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	send := func(kind string, v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		// If a browser does not read, its stream ends.
		flush.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, text); err != nil {
			cancel()
			return err
		}
		return nil
	}
	err = op.Stream(ctx, c.operator, params, func(item any) error { return send("event", item) },
		func(p operate.Progress) {
			send("count", p.Text)
			flush.Flush()
		})
	if err != nil && ctx.Err() == nil {
		send("failed", err.Error())
		flush.Flush()
	}
}
