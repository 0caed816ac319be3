package app

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/awsclient"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// explainStorage names the field of the configuration that an error of the store is about, and what to do.
func explainStorage(c config.Storage, err error) error {
	where := show.URL(c.Endpoint)
	if where == "" {
		where = "AWS (" + c.Region + ")"
	}
	if e := explainCredentials(c, err); e != nil {
		return e
	}
	e := &config.FieldError{Err: err}
	switch code := objstore.CodeOf(err); code {
	case "":
		e.Field, e.Value, e.Do = "storage.endpoint", show.URL(c.Endpoint), "start the store, or correct the URL"
		switch {
		case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
			e.Do = "begin the URL with http://, or enable TLS in the store"
		}
		return e
	case "NoSuchBucket":
		e.Field, e.Value, e.Do = "storage.bucket", c.Bucket, `run "penstock setup", or create the bucket`
		e.Err = because(err, "the bucket does not exist at %s", where)
	case "InvalidBucketName":
		e.Field, e.Value, e.Do = "storage.bucket", c.Bucket, "choose a name of 3 to 63 lowercase letters, digits and hyphens"
		e.Err = because(err, "%s does not accept the name", where)
	case "SignatureDoesNotMatch":
		e.Field, e.Do = "storage.secret_key", "correct storage.secret_key, or storage.access_key"
		e.Err = because(err, "%s rejects the signature: the secret is wrong (%s)", where, code)
	case "InvalidAccessKeyId", "Unauthorized":
		e.Field, e.Value, e.Do = "storage.access_key", c.AccessKey, "correct storage.access_key and storage.secret_key"
		e.Err = because(err, "%s does not know this key (%s)", where, code)
	case "AccessDenied", "Forbidden":
		e.Field, e.Value = "storage.access_key", c.AccessKey
		e.Err = because(err, "%s denies access to the bucket %q (%s)", where, c.Bucket, code)
		e.Do = "give the key the rights s3:ListBucket, s3:GetObject and s3:PutObject"
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "MovedPermanently":
		e.Field, e.Value, e.Do = "storage.region", c.Region, "set the region of the bucket"
	case "InvalidRegionName":
		e.Field, e.Value, e.Do = "storage.region", c.Region, "set a region of this store; R2 has the region auto"
	default:
		e.Field, e.Value, e.Do = "storage.endpoint", show.URL(c.Endpoint), "see the message of the store"
	}
	return e
}

// reason replaces an error's text by a better one.
type reason struct {
	text  string
	cause error
}

func because(cause error, format string, args ...any) error {
	return reason{fmt.Sprintf(format, args...), cause}
}

func (r reason) Error() string { return r.text }
func (r reason) Unwrap() error { return r.cause }

// Codes of ClickHouse's errors.
const (
	unknownTable         = 60
	unknownDatabase      = 81
	unknownUser          = 192
	wrongPassword        = 193
	authenticationFailed = 516
)

// explainServer does the same for errors of the store or of ClickHouse.
func explainServer(c config.Config, err error) error {
	if _, explained := errors.AsType[*config.FieldError](err); explained {
		return err
	}
	if _, ok := errors.AsType[awsclient.Brief](err); ok && !strings.Contains(err.Error(), "SQS") {
		return explainStorage(c.Storage, err)
	}
	return explainTable(c.ClickHouse, err)
}

// explainTable does the same for errors of ClickHouse.
func explainTable(c config.ClickHouse, err error) error {
	if _, explained := errors.AsType[*config.FieldError](err); explained || retry.ClassOf(err) != retry.Outage {
		return err // about what was asked, and no field
	}
	addresses := strings.Join(c.Addresses, ",")
	e := &config.FieldError{Field: "clickhouse.addresses", Value: addresses, Err: err}
	text := err.Error()
	switch code := retry.CodeOf(err); {
	case code == authenticationFailed || code == unknownUser || code == wrongPassword:
		e.Field, e.Value, e.Do = "clickhouse.user", c.User, "correct clickhouse.user and clickhouse.password"
		e.Err = because(err, "%s rejects user or password (code %d)", addresses, code)
	case code == unknownDatabase:
		e.Field, e.Value, e.Do = "clickhouse.database", c.Database, `run "penstock setup"`
		e.Err = because(err, "the database does not exist at %s", addresses)
	case code == unknownTable:
		e.Field, e.Value, e.Do = "clickhouse.database", c.Database, `run "penstock setup"`
	case code != 0:
		return err
	case strings.Contains(text, "unexpected packet"):
		e.Err = because(err, "the answer is not of the native protocol; this looks like the HTTP port")
		e.Do = "use the native port: 9000, with TLS 9440"
	case strings.Contains(text, "does not look like a TLS handshake"):
		e.Field, e.Value = "clickhouse.tls.enabled", "true"
		e.Err = because(err, "%s does not speak TLS on this port", addresses)
		e.Do = "use the TLS port (9440), or set clickhouse.tls.enabled to false"
	case strings.HasSuffix(text, "EOF") || strings.Contains(text, "connection reset"):
		e.Err = because(err, "the server closes the connection; this looks like a port for TLS")
		e.Do = "set clickhouse.tls.enabled to true, or use the port without TLS (9000); the ClickHouse of penstock dev " +
			"also closes it if clickhouse.user, clickhouse.password or clickhouse.database is wrong"
	default:
		e.Do = "start ClickHouse, or correct the address"
	}
	return e
}

// explainJetStream does the same for errors of NATS.
func explainJetStream(cfg config.Config, err error) error {
	e := &config.FieldError{Field: "queue.url", Value: show.URL(cfg.Queue.URL), Err: err,
		Do: "start NATS, or correct the URL"}
	if strings.Contains(strings.ToLower(err.Error()), "authorization") {
		e.Do = "correct queue.user and queue.password, or queue.creds"
	}
	return e
}

// explainSQS does the same for errors of SQS.
func explainSQS(cfg config.Config, err error) error {
	if e := explainCredentials(cfg.Storage, err); e != nil {
		return e
	}
	e := &config.FieldError{Field: "queue.sqs.queue", Value: cfg.Queue.SQS.Queue, Err: err, Do: "see the message of SQS"}
	switch code := awsclient.CodeOf(err); code {
	case "":
		e.Field, e.Value = "queue.sqs.region", cmp.Or(cfg.Queue.SQS.Region, cfg.Storage.Region)
		e.Do = "set the region of the queues, and let this machine reach SQS"
		if cfg.Queue.SQS.Endpoint != "" {
			e.Field, e.Value = "queue.sqs.endpoint", show.URL(cfg.Queue.SQS.Endpoint)
			e.Do = "start the server, or correct the URL"
		}
	case "AccessDenied", "AccessDeniedException":
		e.Do = "give the credentials the rights sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:ReceiveMessage, " +
			"sqs:DeleteMessage, sqs:ChangeMessageVisibility and sqs:SendMessage"
	case "AWS.SimpleQueueService.QueueDeletedRecently":
		e.Do = "wait 60 seconds"
	default:
		if strings.HasSuffix(code, "NonExistentQueue") || code == "QueueDoesNotExist" {
			e.Do = `run "penstock setup", or correct the name or the region`
		}
	}
	return e
}

// explainCredentials does the same for credentials of AWS; nil: the error is not about them.
func explainCredentials(c config.Storage, err error) *config.FieldError {
	if unsigned, ok := errors.AsType[awsclient.CredentialsError](err); ok {
		e := &config.FieldError{Field: "storage.access_key", Value: c.AccessKey, Err: because(err, "%v", unsigned),
			Do: "set storage.access_key and storage.secret_key, or give this process credentials as AWS does"}
		switch {
		case c.RoleARN != "":
			e.Field, e.Value = "storage.role_arn", c.RoleARN
			e.Do = "let the role trust these credentials, or correct the ARN"
		case (c.AccessKey == "") != (c.SecretKey == ""):
			e.Do = "set both storage.access_key and storage.secret_key, or none for AWS's default chain"
		case c.Profile != "":
			e.Field, e.Value = "storage.profile", c.Profile
			e.Do = `add the profile to ~/.aws/config, or run "aws sso login --profile ` + c.Profile + `"`
		}
		return e
	}
	switch code := awsclient.CodeOf(err); code {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired":
		e := &config.FieldError{Field: "storage.session_token", Do: "set new keys with their session token, or use AWS's " +
			"default chain, which renews them"}
		if c.AccessKey == "" {
			e.Field, e.Do = "storage.access_key", `renew the credentials of AWS's default chain, as by "aws sso login"`
		}
		e.Err = because(err, "the session token has expired (%s)", code)
		return e
	case "InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId":
		if c.SessionToken == "" && code == "InvalidAccessKeyId" {
			return nil
		}
		return &config.FieldError{Field: "storage.access_key", Value: c.AccessKey,
			Err: because(err, "AWS does not accept the key or its session token (%s)", code),
			Do:  "correct storage.access_key, storage.secret_key and storage.session_token"}
	}
	return nil
}

// explainListen does the same for a listener that cannot be opened.
func explainListen(field, address string, err error) error {
	e := &config.FieldError{Field: field, Value: address, Err: err, Do: "set another address"}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		e.Err = because(err, "%v", op.Err)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.Err = because(err, "another process uses this address")
		e.Do = "stop that process, or set another address"
		if field == "admin.listen" {
			e.Do += "; each role on a machine needs a separate one"
		}
	case errors.Is(err, fs.ErrPermission):
		e.Do = fmt.Sprintf("set a port of 1024 or more, or let the user %s open it", config.UserName())
	}
	return e
}

// explainDir does the same for the folder of the write-ahead log. Errors that are not about files stay as they are.
func explainDir(dir string, err error) error {
	e := &config.FieldError{Field: "batcher.dir", Value: dir, Err: err}
	switch {
	case errors.Is(err, batcher.ErrLocked):
		e.Err = because(err, "another process uses this folder%s", holder(dir))
		e.Do = "stop that process, or set another folder: each receiver needs a separate one"
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		e.Do = fmt.Sprintf("let the user %s write to it, or set another folder", config.UserName())
	case errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist):
		e.Err = because(err, "it is a file, not a folder")
		e.Do = "set a folder"
	case errors.Is(err, syscall.ENOSPC):
		e.Do = "free space on this disk, or set another folder"
	default:
		return err
	}
	return e
}

// holder names the process that has locked a folder below dir, if the system can tell.
func holder(dir string) string {
	inodes := map[string]bool{}
	for _, name := range []string{"events", "errors"} {
		info, err := os.Stat(dir + "/" + name)
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			inodes[fmt.Sprint(st.Ino)] = true
		}
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer locks.Close()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
		f := strings.Fields(lines.Text())
		if len(f) > 5 && f[1] == "FLOCK" && inodes[f[5][strings.LastIndexByte(f[5], ':')+1:]] {
			return " (pid " + f[4] + ")"
		}
	}
	return ""
}
