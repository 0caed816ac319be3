package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/batcher"
	errorspipeline "github.com/penstock/penstock/errors-pipeline"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/projects"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/schemas"
	"github.com/penstock/penstock/internal/wallclock"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tap"
	"github.com/penstock/penstock/receiver/tenant"
)

// receiverKeys converts the keys of the configuration for the receiver.
func receiverKeys(c config.Receiver) (keys []tenant.Key, err error) {
	for i, k := range c.Keys {
		key := tenant.Key{Project: k.Project, Secret: k.Secret}
		if key.Hash, key.MinDurability, err = k.Parse(); err != nil {
			return nil, fmt.Errorf("receiver.keys[%d].%w", i, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// intake accepts events: a batcher for each pipeline, the reporter, and the receiver. A loader has no receiver, because
// it only reports.
type intake struct {
	process
	name     string // under which it writes
	dir      string // of the log
	receiver *receiver.Receiver
	tap      *tap.Tap          // of the receiver
	clock    *wallclock.Watch  // of the receiver
	projects *projects.Watcher // nil: no projects file
	reporter *errorspipeline.Reporter
	batchers []*batcher.Batcher
	queue    queue.Queue // nil unless storage.notify is self
	notifier *notifier   // likewise
	folder   io.Closer   // nil: the receiver's own

	schemas *schemas.Set // nil: events are not held against any

	stopReporter, stopBatchers context.CancelFunc
	stopWatch                  context.CancelFunc // nil: nobody looks at projects
	reporting, batching        errgroup.Group
	watching                   errgroup.Group
}

// newIntake connects the stages from the request to the bucket. The receiver's log is in batcher.dir. Other roles,
// which run next to it, get a separate folder below it, and a name with the folder's number.
//
// shown shows the receiver's events; nil: only the receiver's own tap does.
func newIntake(p process, role string, specs []pipeline.Spec, shown *tap.Tap) (_ *intake, err error) {
	in := &intake{process: p, dir: p.cfg.Batcher.Dir, tap: shown}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close())
		}
	}()
	if in.name, err = receiverName(p.cfg); err != nil {
		return nil, explainDir(p.cfg.Batcher.Dir, err)
	}
	if role != "receive" {
		if in.dir, in.folder, err = batcher.FreeFolder(filepath.Join(in.dir, role)); err != nil {
			return nil, explainDir(p.cfg.Batcher.Dir, err)
		}
		in.name = fmt.Sprintf("%.50s-%s%s", in.name, role, filepath.Base(in.dir))
	}
	if p.cfg.Storage.Notify == "self" {
		if in.queue, err = OpenQueue(p.cfg, "penstock-"+role+" "+in.name, p.log); err != nil {
			return nil, err
		}
	}
	if in.queue != nil {
		in.notifier = newNotifier(in.queue, p.log)
	}
	appenders := map[string]*batcher.Batcher{}
	for _, spec := range specs {
		b, err := in.newBatcher(spec)
		if err != nil {
			return nil, err
		}
		in.batchers = append(in.batchers, b)
		appenders[spec.Name] = b
	}
	in.reporter = errorspipeline.New(appenders[pipeline.Errors.Name], errorspipeline.Options{
		Memory: int64(p.cfg.Errors.MaxMemory), BlobThreshold: int64(p.cfg.Errors.BlobThreshold)}, p.log, p.reg)
	if events := appenders[pipeline.Events.Name]; events != nil {
		if err := in.addReceiver(events); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// newBatcher makes one pipeline's batcher, with a folder and a name that no other process uses.
func (in *intake) newBatcher(spec pipeline.Spec) (*batcher.Batcher, error) {
	c := in.cfg.Batcher
	format, err := pipeline.ParseFormat(c.Format)
	if err != nil {
		return nil, err
	}
	opts := batcher.Options{
		Receiver: in.name, Dir: filepath.Join(in.dir, spec.Name), Format: format,
		RollAge: time.Duration(c.RollAge), RollBytes: int64(c.RollBytes), RollRows: c.RollRows,
		SegmentBytes: int64(c.MaxSegment), MaxDisk: int64(c.MaxDisk),
		ObjectWait: time.Duration(c.ObjectWait), ObjectTimeout: time.Duration(c.ObjectTimeout),
		Uploads: c.Uploads, PutTimeout: time.Duration(c.PutTimeout),
		Backoff: retry.Backoff{Min: time.Duration(c.BackoffMin), Max: time.Duration(c.BackoffMax)},
		// Requests under way have used the first half.
		Drain:  time.Duration(in.cfg.Process.Drain) / 2,
		Tracer: in.tracer,
	}
	opts.Stored = func(_ context.Context, o pipeline.Object) { in.stored(spec, o) }
	if spec == pipeline.Errors {
		opts.MaxDisk = int64(in.cfg.Errors.MaxDisk)
		opts.SegmentBytes = min(opts.SegmentBytes, opts.MaxDisk)
	} else {
		// The errors pipeline does not report about itself.
		opts.Failed = func(f pipeline.Failure) { in.reporter.Report(f) }
	}
	return batcher.New(spec, opts, in.store, in.log, in.reg), nil
}

// stored announces an object.
func (in *intake) stored(spec pipeline.Spec, o pipeline.Object) {
	if in.queue != nil {
		in.notifier.add(spec, o)
	}
	if spec == pipeline.Events && o.Meta.Rows > 0 {
		in.tap.Store(tap.Stored{Object: o.Key, Receiver: in.name, First: o.Meta.FirstSeq,
			Last: o.Meta.FirstSeq + uint64(o.Meta.Rows) - 1})
	}
}

// addReceiver makes the receiver, which appends to events.
func (in *intake) addReceiver(events *batcher.Batcher) error {
	c := in.cfg.Receiver
	keys, err := receiverKeys(c)
	if err != nil {
		return err
	}
	proxies, err := c.Proxies()
	if err != nil {
		return err
	}
	spool := filepath.Join(in.dir, "spool")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return explainDir(in.cfg.Batcher.Dir, err)
	}
	var judge receiver.Schemas
	if in.cfg.Schemas.Mode != "off" {
		if in.schemas, err = schemas.Open(in.cfg.Schemas.Dir, in.log); err != nil {
			return err
		}
		judge = in.schemas
	}
	durability, _ := pipeline.ParseDurability(c.Durability)
	in.clock = watchClock(in.cfg, in.log, in.reg)
	in.receiver, err = receiver.New(receiver.Options{
		Name: in.name, Tap: in.tap, Keys: keys, Durability: durability,
		MaxBody: int64(c.MaxBody), MaxDecoded: int64(c.MaxDecoded), SmallBody: int64(c.SmallBody), MaxEvent: int(c.MaxEvent),
		MaxEvents: c.MaxEvents, BlobThreshold: int(c.BlobThreshold), MaxDepth: c.MaxDepth,
		MaxMemory: int64(c.MaxMemory), MaxSpool: int64(c.MaxSpool), SpoolDir: spool,
		ReadTimeout: time.Duration(c.ReadTimeout), RetryAfter: time.Duration(c.RetryAfter),
		Origins: c.Origins, TrustedProxies: proxies, ClientIPHeader: c.ClientIPHeader,
		CountryHeader: c.CountryHeader, SessionReplay: c.SessionReplay,
		Schemas: judge, EnforceSchemas: in.cfg.Schemas.Mode == "enforce",
		AnonymousRate: int64(in.cfg.Errors.AnonymousRate), MaxKeyless: c.MaxKeyless, MaxConnections: c.MaxConnections,
		Ready: in.clock.Err, Tracer: in.tracer,
	}, shiftedClock(events), in.reporter, in.log, in.reg)
	if err == nil && c.Projects != "" {
		in.projects, err = projects.Open(c.Projects, in.receiver, in.log, in.reg)
	}
	return err
}

// start recovers what an earlier process left before it accepts events.
func (in *intake) start() error {
	for _, b := range in.batchers {
		if err := b.Open(); err != nil {
			return explainDir(in.cfg.Batcher.Dir, err)
		}
	}
	var reporting, batching context.Context
	reporting, in.stopReporter = context.WithCancel(context.Background())
	batching, in.stopBatchers = context.WithCancel(context.Background())
	for _, b := range in.batchers {
		in.batching.Go(func() error { return b.Run(batching) })
	}
	if in.notifier != nil {
		go in.notifier.run()
	}
	if in.schemas != nil {
		in.reporting.Go(func() error { in.schemas.Watch(reporting, time.Second); return nil })
	}
	in.reporting.Go(func() error { return in.reporter.Run(reporting) })
	if in.projects != nil {
		var watching context.Context
		watching, in.stopWatch = context.WithCancel(context.Background())
		in.projects.ReadUsage(in.dir)
		in.watching.Go(func() error { in.projects.Watch(watching, in.dir); return nil })
	}
	return nil
}

// stop drains the reporter, then the batchers that it writes to. The receiver has stopped before.
func (in *intake) stop() error {
	if in.stopWatch != nil {
		in.stopWatch()
		in.watching.Wait()
	}
	in.stopReporter()
	err := in.reporting.Wait()
	in.stopBatchers()
	err = errors.Join(err, in.batching.Wait())
	if in.notifier != nil {
		in.notifier.stop()
	}
	return errors.Join(err, in.close())
}

func (in *intake) close() error {
	if in.queue != nil {
		in.queue.Close()
	}
	if in.folder != nil {
		return in.folder.Close()
	}
	return nil
}
