package app

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/penstock/penstock/internal/awsclient"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/queue/cloudflare"
	"github.com/penstock/penstock/internal/queue/jetstream"
	"github.com/penstock/penstock/internal/queue/sqs"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// queueType is what the roles know of a type of queue.
type queueType struct {
	open    func(cfg config.Config, name string, log *slog.Logger) (queue.Queue, error)
	text    func(cfg config.Config) string // names the queue in the log
	explain func(cfg config.Config, err error) error
}

// queueTypeOf has a line for each adapter.
func queueTypeOf(cfg config.Config) queueType {
	switch cfg.QueueType() {
	case config.NoQueue:
		return queueType{openNone, noneText, explainNone}
	case "sqs":
		return queueType{openSQS, sqsText, explainSQS}
	case "cloudflare":
		return queueType{openCloudflare, cloudflareText, explainCloudflare}
	default:
		return queueType{openJetStream, jetStreamText, explainJetStream}
	}
}

// OpenQueue opens a connection to the queue; nil: the configuration has none. name identifies the connection to the
// server. A process opens several, so the adapter must connect to a server that all processes share.
func OpenQueue(cfg config.Config, name string, log *slog.Logger) (queue.Queue, error) {
	return queueTypeOf(cfg).open(cfg, name, log)
}

// queueText names the queue in the log.
func queueText(cfg config.Config) string { return queueTypeOf(cfg).text(cfg) }

// explainQueue names the field of the configuration that an error of the queue is about, and what to do.
func explainQueue(cfg config.Config, err error) error { return queueTypeOf(cfg).explain(cfg, err) }

// lettersOf is where a queue keeps dead letters; nil: the load ledger alone has them.
func lettersOf(q queue.Queue) queue.Letters {
	letters, _ := q.(queue.Letters)
	return letters
}

func openNone(config.Config, string, *slog.Logger) (queue.Queue, error) { return nil, nil }

func noneText(cfg config.Config) string {
	if cfg.Storage.Notify == config.NoQueue {
		return "none (storage.notify); the bucket is listed"
	}
	return "none (queue.type); the bucket is listed"
}

func explainNone(_ config.Config, err error) error { return err }

func openJetStream(cfg config.Config, name string, log *slog.Logger) (queue.Queue, error) {
	c := cfg.Queue
	o := jetstream.Options{URL: c.URL, User: c.User, Password: c.Password, Creds: c.Creds,
		TLS: c.TLS.Config(log), AckWait: time.Duration(c.AckWait), MaxAge: time.Duration(c.MaxAge),
		MaxBytes: int64(c.MaxBytes), Replicas: c.Replicas, NotifyARN: cfg.Storage.NotifyARN}
	q, err := jetstream.Connect(o, name, log)
	if err != nil {
		return nil, err // a nil *jetstream.Queue in the interface would not be nil
	}
	return q, nil
}

func jetStreamText(cfg config.Config) string { return show.URL(cfg.Queue.URL) }

// openSQS asks as the one who asks the bucket.
func openSQS(cfg config.Config, _ string, log *slog.Logger) (queue.Queue, error) {
	c, s := cfg.Queue, cfg.Storage
	return sqs.Connect(sqs.Options{
		AWS: awsclient.Options{Region: cmp.Or(c.SQS.Region, s.Region), AccessKey: s.AccessKey, SecretKey: s.SecretKey,
			SessionToken: s.SessionToken, Profile: s.Profile, RoleARN: s.RoleARN, TLS: s.TLS.Config(log)},
		Endpoint: c.SQS.Endpoint, Queue: c.SQS.Queue, AckWait: time.Duration(c.AckWait), MaxAge: time.Duration(c.MaxAge),
	}, log), nil
}

func sqsText(cfg config.Config) string {
	return cmp.Or(show.URL(cfg.Queue.SQS.Endpoint), "SQS ("+cmp.Or(cfg.Queue.SQS.Region, cfg.Storage.Region)+")") + " " +
		cfg.Queue.SQS.Queue
}

func openCloudflare(cfg config.Config, _ string, log *slog.Logger) (queue.Queue, error) {
	c := cfg.Queue.Cloudflare
	token, err := c.Secret(log)
	if err != nil {
		return nil, err
	}
	return cloudflare.Connect(cloudflare.Options{Endpoint: c.Endpoint, Account: c.Account, Token: token, Queue: c.Queue,
		Jurisdiction: c.Jurisdiction, Lease: time.Duration(c.Lease), Poll: time.Duration(c.Poll)}, log), nil
}

func cloudflareText(cfg config.Config) string { return "Cloudflare " + cfg.Queue.Cloudflare.Queue }

// explainCloudflare is explainJetStream for errors of Cloudflare Queues.
func explainCloudflare(cfg config.Config, err error) error {
	c := cfg.Queue.Cloudflare
	if _, explained := errors.AsType[*config.FieldError](err); explained || retry.ClassOf(err) != retry.Outage {
		return err // about no field
	}
	e := &config.FieldError{Field: "queue.cloudflare.endpoint", Value: show.URL(c.Endpoint), Err: err,
		Do: "let this machine reach Cloudflare's API, or correct the URL"}
	switch cloudflare.ProblemOf(err) {
	case cloudflare.Token:
		e.Field, e.Value = "queue.cloudflare.api_token", ""
		e.Do = fmt.Sprintf("set an API token of the account %q with the permission Account, Queues, Edit", c.Account)
		if c.APITokenFile != "" {
			e.Field, e.Value = "queue.cloudflare.api_token_file", c.APITokenFile
		}
	case cloudflare.Busy:
		e.Do = "wait; the limit is that of the whole account"
	case cloudflare.Answer:
		e.Do = "see the message of Cloudflare"
	case cloudflare.Unreachable:
	}
	return e
}
