package receivertest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tenant"
)

// Keys of the receivers that Start makes.
const (
	Project = "game"
	Key     = "secret-of-game"
	Secret  = "signs-for-game" // of Key
	DiskKey = "secret-of-bank" // requests may not go below disk
)

// Start makes a receiver over a new sink, with changes of its options. with may be nil.
func Start(with func(*receiver.Options)) (*receiver.Receiver, *intake.Sink) {
	o := Options(tenant.Key{Project: Project, Hash: tenant.HashKey(Key), Secret: Secret},
		tenant.Key{Project: "bank", Hash: tenant.HashKey(DiskKey), MinDurability: pipeline.Disk})
	o.MaxBody, o.MaxDecoded, o.MaxEvent = 4<<20, 8<<20, 2<<20
	if with != nil {
		with(&o)
	}
	s := &intake.Sink{}
	r, err := receiver.New(o, s, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		panic(err)
	}
	return r, s
}

// WithKey puts Key into a request's head.
func WithKey(req *http.Request) *http.Request {
	req.Header.Set("Authorization", "Bearer "+Key)
	return req
}

// Send posts and returns the answer as it is.
func Send(r http.Handler, target, body string, header ...string) (status int, answer map[string]any) {
	w := intake.Do(r, intake.Post(target, body, header...))
	json.Unmarshal(w.Body.Bytes(), &answer)
	return w.Code, answer
}

// StartProject is Start with settings of the project that Key belongs to.
func StartProject(with func(*receiver.Options), p tenant.Project) (*receiver.Receiver, *intake.Sink) {
	r, s := Start(with)
	p.Name = Project
	if err := r.SetProjects([]tenant.Project{p}, nil); err != nil {
		panic(err)
	}
	return r, s
}

// Salt is for projects that hash values.
const Salt = "a salt of sixteen"

// Hashed is the hash of a text in a project with Salt.
func Hashed(text string) string {
	h := hmac.New(sha256.New, []byte(Salt))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

// Events posts to Penstock's own API with Key.
func Events(t testing.TB, r http.Handler, body string, header ...string) intake.Answer {
	t.Helper()
	return intake.Serve(t, r, WithKey(intake.Post("/v1/events", body, header...)))
}
