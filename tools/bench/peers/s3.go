package peers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/tools/devstack"
)

const (
	// objectRows is the number of rows in an object. It gives several objects in a run, each large enough for an insert.
	objectRows = 100_000
	bucketName = "penstock"
	receiveKey = "bench"
)

// store is the bucket that ClickHouse reads. It is filled once and read by every run.
type store struct {
	*devstack.MinIO
	filled map[string]bool // formats
}

// startStore starts MinIO with an empty bucket.
func (b *bench) startStore(ctx context.Context) (*store, error) {
	binary, err := b.fetcher.MinIO(ctx)
	if err != nil {
		return nil, err
	}
	minio, err := devstack.StartMinIO(ctx, devstack.MinIOOptions{Binary: binary, Data: filepath.Join(b.dir, "minio")})
	if err != nil {
		return nil, err
	}
	s := &store{MinIO: minio, filled: map[string]bool{}}
	if err := s.bucket().Create(ctx); err != nil {
		minio.Kill()
		return nil, err
	}
	return s, nil
}

func (s *store) bucket() *objstore.Bucket {
	return objstore.Open(objstore.Options{Endpoint: s.Endpoint(), Region: "us-east-1", Bucket: bucketName,
		AccessKey: s.AccessKey(), SecretKey: s.SecretKey(), PathStyle: true})
}

// fill lets `penstock receive` write all events as objects of a format.
func (b *bench) fill(ctx context.Context, s *store, format string) error {
	penstock, err := b.buildPenstock(ctx)
	if err != nil {
		return err
	}
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	admin, err := freeAddress()
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(receiveKey))
	receive, err := devstack.Start(ctx,
		devstack.Command{Name: "penstock receive", Path: penstock, Args: []string{"receive"},
			LogPath: b.logs("receive-" + format), Dir: b.dir,
			Env: append(os.Environ(),
				"PENSTOCK_STORAGE_ENDPOINT="+s.Endpoint(),
				"PENSTOCK_STORAGE_BUCKET="+bucketName,
				"PENSTOCK_STORAGE_ACCESS_KEY="+s.AccessKey(),
				"PENSTOCK_STORAGE_SECRET_KEY="+s.SecretKey(),
				"PENSTOCK_STORAGE_NOTIFY=none",
				"PENSTOCK_ADMIN_LISTEN="+admin,
				"PENSTOCK_RECEIVER_LISTEN="+listen,
				"PENSTOCK_RECEIVER_NAME=bench-"+format,
				"PENSTOCK_RECEIVER_KEYS=[{project: bench, sha256: "+hex.EncodeToString(sum[:])+"}]",
				"PENSTOCK_BATCHER_DIR="+filepath.Join(b.dir, "receive-"+format),
				"PENSTOCK_BATCHER_FORMAT="+format,
				"PENSTOCK_BATCHER_ROLL_AGE=1h",
				fmt.Sprintf("PENSTOCK_BATCHER_ROLL_ROWS=%d", objectRows),
				"PENSTOCK_PROCESS_DRAIN=5m",
			)})
	if err != nil {
		return err
	}
	defer receive.Kill()
	if err := awaitOK(ctx, receive, "http://"+admin+"/readyz"); err != nil {
		return err
	}
	var sent traffic.Sent
	if err := traffic.Run(ctx, traffic.NewClient("http://"+listen+"/v1/events", receiveKey, b.conns), format, b.events,
		500, b.conns, 0, &sent); err != nil {
		return fmt.Errorf("fill the bucket: %w", err)
	}
	drain, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	receive.Stop(drain)
	return b.checkFilled(ctx, s, format)
}

// checkFilled checks that the objects have all events, before reading them is measured.
func (b *bench) checkFilled(ctx context.Context, s *store, format string) error {
	var objects, rows, bytes int64
	err := s.bucket().List(ctx, "events/", "", "", func(page []pipeline.Object) error {
		for _, o := range page {
			if !strings.HasSuffix(o.Key, formats[format].suffix) {
				continue
			}
			whole, err := s.bucket().Head(ctx, o.Key)
			if err != nil {
				return err
			}
			objects, rows, bytes = objects+1, rows+whole.Meta.Rows, bytes+whole.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	if rows != int64(b.events) {
		return fmt.Errorf("%d events are in objects of format %s, want %d", rows, format, b.events)
	}
	b.say("%d %s objects, %d events, %.1f MB", objects, format, rows, float64(bytes)/1e6)
	return nil
}

// formats maps Penstock's formats to those of ClickHouse's s3(). Parquet is missing: ClickHouse alone cannot turn its
// typed columns into a JSON column, and without them it would do only a part of the work.
var formats = map[string]struct{ suffix, name string }{
	"ndjson": {".ndjson.zst", "JSONEachRow"},
}

// structure gives ClickHouse the types. By guessing, it would make an NDJSON line's properties a Tuple, which is slower
// to convert to JSON. properties has the type of the table's column: ClickHouse converts any other JSON type by way of
// text, which takes 23 s/M.
const structure = "event_id UUID, project String, name String, timestamp Nullable(DateTime64(3, 'UTC')), " +
	"received_at DateTime64(3, 'UTC'), " +
	"session_id String, user_id String, receiver String, seq UInt64, properties JSON(max_dynamic_paths = 256), " +
	"context JSON"

// pull measures ClickHouse reading a format's objects alone.
func (b *bench) pull(ctx context.Context, format string) (figures, error) {
	f := figures{Events: b.events}
	if b.store == nil {
		s, err := b.startStore(ctx)
		if err != nil {
			return f, err
		}
		b.store = s
	}
	if !b.store.filled[format] {
		if err := b.fill(ctx, b.store, format); err != nil {
			return f, err
		}
		b.store.filled[format] = true
	}
	e, err := b.startEngine(ctx, true)
	if err != nil {
		return f, err
	}
	defer e.close()

	settings := "date_time_input_format = 'best_effort'"
	if !b.defaults {
		settings += ", optimize_on_insert = 0"
	}
	begin := time.Now()
	err = e.db.Exec(ctx, fmt.Sprintf(`INSERT INTO penstock.events
		(event_id, project, name, timestamp, identity_time, received_at, session_id, user_id,
		 receiver, seq, properties, context, object)
		SELECT event_id, project, name, ifNull(timestamp, received_at), ifNull(timestamp, toDateTime64(0, 3)), received_at,
			session_id, user_id, receiver, seq, properties, context, substring(_path, %d)
		FROM s3('%s/%s/events/dt=*/hr=*/*%s', '%s', '%s', '%s', '%s')
		SETTINGS %s`,
		len(bucketName)+2, b.store.Endpoint(), bucketName, formats[format].suffix, b.store.AccessKey(), b.store.SecretKey(),
		formats[format].name,
		strings.ReplaceAll(structure, "'", `\'`), settings))
	if err != nil {
		return f, errors.Join(err, e.Err())
	}
	f.Seconds = time.Since(begin).Seconds()
	if err := e.finish(ctx, "penstock.events", "event_id", &f); err != nil {
		return f, err
	}
	f.PeerRSS = *f.EngineRSS // the engine is the peer
	return f, nil
}

// buildPenstock builds this checkout's binary, once for each run of the benchmark.
func (b *bench) buildPenstock(ctx context.Context) (path string, err error) {
	if b.penstock == "" {
		b.say("building penstock")
		b.penstock, err = BuildPenstock(ctx, b.dir)
	}
	return b.penstock, err
}

// BuildPenstock builds the binary of this checkout into a folder, and returns its path.
func BuildPenstock(ctx context.Context, dir string) (string, error) {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/penstock/penstock")
	root, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("find Penstock's source: %w: run the benchmark in tools/bench", err)
	}
	path := filepath.Join(dir, "penstock")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/penstock") // #nosec G204 -- our own folder
	build.Dir = strings.TrimSpace(string(root))
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build penstock: %w\n%s", err, out)
	}
	return path, nil
}

// freeAddress returns a free address on this machine.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// awaitOK waits until the process answers with 200.
func awaitOK(ctx context.Context, p *devstack.Process, url string) error {
	return await(ctx, p, func() error {
		resp, err := http.Get(url) // #nosec G107 -- of a process that we started
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// await repeats probe until it succeeds, the process ends, or half a minute has passed.
func await(ctx context.Context, p *devstack.Process, probe func() error) error {
	end := time.Now().Add(30 * time.Second)
	for {
		err := probe()
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return p.Err()
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer: %w; its log ends:\n%s", p.Name, err, p.LogTail())
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
}
