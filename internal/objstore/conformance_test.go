package objstore_test

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/sivchari/kumo"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/objstore/objstoretest"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/devstack"
)

// buckets returns an open function for the suite.
func buckets(endpoint, key, secret string) func(*testing.T) objstore.Options {
	var n atomic.Int64
	return func(*testing.T) objstore.Options {
		return objstore.Options{Endpoint: endpoint, Region: "us-east-1", Bucket: fmt.Sprint("bucket-", n.Add(1)),
			AccessKey: key, SecretKey: secret, PathStyle: true}
	}
}

func TestMinIO(t *testing.T) {
	t.Parallel()
	m := servers.MinIO(t, devstack.MinIOOptions{})
	open := buckets(m.Endpoint(), m.AccessKey(), m.SecretKey())
	objstoretest.Test(t, open)
	t.Run("ControlCharacters", func(t *testing.T) { objstoretest.TestControlCharacters(t, open) })
}

func TestGofakes3(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(gofakes3.New(s3mem.New()).Server())
	t.Cleanup(server.Close)
	objstoretest.Test(t, buckets(server.URL, "key", "secret"))
}

// TestOther runs the suite on a store that somebody has started: PENSTOCK_TEST_STORE is its URL, with key and secret as
// user and password. It makes buckets there. docs/design/objects.md says which stores were tested.
func TestOther(t *testing.T) {
	text := os.Getenv("PENSTOCK_TEST_STORE")
	if text == "" {
		t.Skip("on demand: set PENSTOCK_TEST_STORE=http://KEY:SECRET@127.0.0.1:7070")
	}
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := u.User.Password()
	key := u.User.Username()
	u.User = nil
	open := buckets(u.String(), key, secret)
	objstoretest.Test(t, func(t *testing.T) objstore.Options {
		o := open(t)
		o.Bucket = fmt.Sprint("penstock-", time.Now().UnixNano())
		return o
	})
}

func TestKumo(t *testing.T) {
	t.Parallel()
	server := kumo.NewServer()
	t.Cleanup(server.Close)
	objstoretest.Test(t, buckets(server.URL, "key", "secret"))
}
