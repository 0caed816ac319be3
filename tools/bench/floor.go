package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// runFloor runs the baseline of --floor: an HTTP server in Go that does the least work for a request.
func runFloor(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "floor",
		"An HTTP server that reads bodies and gives all the same answer; `bench receive --floor` runs it.")
	listen := fs.String("listen", "127.0.0.1:0", "`address`")
	answer := fs.String("answer", "{}", "`text` of every answer")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	text := []byte(*answer)
	server := &http.Server{Addr: *listen, ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Write(text)
		})}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
