package cloudflaretest

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
)

// Bucket stands in for R2: it passes requests on to another store with the S3 API, and sends notifications of the
// objects that are created, by the rules of the API. A checksum in a trailer is refused, as R2 did when the AWS SDKs
// began to send one.
func (a *API) Bucket(store *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(store)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: a.created,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // the client sees what the proxy saw: a closed connection
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Trailer") != "" {
			w.WriteHeader(http.StatusNotImplemented)
			w.Write([]byte("<Error><Code>NotImplemented</Code><Message>STREAMING-UNSIGNED-PAYLOAD-TRAILER</Message></Error>"))
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// created sends the notification of an object that a request has created.
func (a *API) created(resp *http.Response) error {
	r := resp.Request
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if resp.StatusCode != http.StatusOK || key == "" {
		return nil
	}
	query := r.URL.Query()
	action := ""
	switch {
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		action = "CopyObject"
	case r.Method == http.MethodPut && !query.Has("partNumber") && !query.Has("tagging"):
		action = "PutObject"
	case r.Method == http.MethodPost && query.Has("uploadId"):
		action = "CompleteMultipartUpload"
	default:
		return nil
	}
	size, _ := strconv.ParseInt(r.Header.Get("Content-Length"), 10, 64)
	if size == 0 {
		size = max(r.ContentLength, 0)
	}
	a.Notify(bucket, action, Object{Key: key, Size: size, ETag: strings.Trim(resp.Header.Get("ETag"), `"`)})
	return nil
}
