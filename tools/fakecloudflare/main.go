// Fakecloudflare serves a stand-in for Cloudflare's API on this machine, for tests that are not in Go: Queues with HTTP
// pull, and event notification rules of R2 buckets (package cloudflaretest).
//
// The API is below /client/v4. A test tells it of a new object, as R2 would:
//
//	POST /fake/notify/BUCKET/PutObject {"key": "events/x", "size": 5, "eTag": "e"}   {"sent": 1}
//	GET  /fake/queues/NAME                                                           {"waiting": 1, "leased": 0}
//
// With --store, a second listener passes requests on to another store with the S3 API, and sends the notifications of
// what is created there.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/penstock/penstock/internal/testing/cloudflaretest"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8976", "address of the API")
	account := flag.String("account", "fake-account", "account ID")
	token := flag.String("token", "fake-token", "API token")
	store := flag.String("store", "", "URL of an S3 API to pass requests on to")
	storeListen := flag.String("store-listen", "127.0.0.1:8977", "address of the bucket, with --store")
	flag.Parse()
	api := cloudflaretest.New(*account, *token)
	if *store != "" {
		target, err := url.Parse(*store)
		if err != nil {
			log.Fatalf("--store: %v", err)
		}
		go serve(*storeListen, "bucket", api.Bucket(target))
	}
	serve(*listen, "api", handler(api))
}

func serve(address, what string, h http.Handler) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s listens on http://%s\n", what, l.Addr())
	s := http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(s.Serve(l))
}

func handler(api *cloudflaretest.API) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/client/v4/", http.StripPrefix("/client/v4", api))
	mux.HandleFunc("POST /fake/notify/{bucket}/{action}", func(w http.ResponseWriter, r *http.Request) {
		var o cloudflaretest.Object
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, map[string]int{"sent": api.Notify(r.PathValue("bucket"), r.PathValue("action"), o)})
	})
	mux.HandleFunc("GET /fake/queues/{name}", func(w http.ResponseWriter, r *http.Request) {
		waiting, leased := api.Backlog(r.PathValue("name"))
		answer(w, map[string]int{"waiting": waiting, "leased": leased})
	})
	return mux
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
