package objstore_test

import (
	"fmt"
	"net/http/httptest"
	"sync/atomic"
	"testing"

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

func TestKumo(t *testing.T) {
	t.Parallel()
	server := kumo.NewServer()
	t.Cleanup(server.Close)
	objstoretest.Test(t, buckets(server.URL, "key", "secret"))
}
