package awsclient

import (
	"bytes"
	"context"
	"crypto/sha1" // #nosec G505 -- the AWS CLI names its cache files by it
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// plain hides this machine's credentials, and returns an empty home folder.
func plain(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("AWS_CONFIG_FILE", home+"/.aws/config")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", home+"/.aws/credentials")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	return home
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return server.URL
}

var later = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)

// fakeSTS answers as AWS STS does. refuse is an error code; empty: it returns credentials.
func fakeSTS(t *testing.T, action, refuse string, want map[string]string) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.Form.Get("Action") != action {
			t.Errorf("STS: got %v, %v; want the action %s", r.Form, err, action)
		}
		for k, v := range want {
			if r.Form.Get(k) != v {
				t.Errorf("STS: got %s %q, want %q", k, r.Form.Get(k), v)
			}
		}
		w.Header().Set("Content-Type", "text/xml")
		if refuse != "" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>not you</Message></Error></ErrorResponse>`,
				refuse)
			return
		}
		fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>ROLEKEY</AccessKeyId><SecretAccessKey>s</SecretAccessKey>`+
			`<SessionToken>t</SessionToken><Expiration>%[2]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`, action, later)
	})
}

// Each way in which AWS gives credentials to a process, against fakes of its services.
func TestChain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(t *testing.T, home string) Options
		key   string
		token string
	}{
		{"static", func(t *testing.T, _ string) Options {
			t.Setenv("AWS_PROFILE", "does-not-exist") // must be ignored
			t.Setenv("AWS_ACCESS_KEY_ID", "OTHER")
			return Options{AccessKey: "KEY", SecretKey: "s"}
		}, "KEY", ""},
		{"static with a token", func(*testing.T, string) Options {
			return Options{AccessKey: "KEY", SecretKey: "s", SessionToken: "t"}
		}, "KEY", "t"},
		{"environment", func(t *testing.T, _ string) Options {
			t.Setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			t.Setenv("AWS_SESSION_TOKEN", "t")
			return Options{}
		}, "ENVKEY", "t"},
		{"shared profile", func(t *testing.T, home string) Options {
			write(t, home+"/.aws/credentials", "[game]\naws_access_key_id = FILEKEY\naws_secret_access_key = s\n")
			return Options{Profile: "game"}
		}, "FILEKEY", ""},
		{"SSO", func(t *testing.T, home string) Options {
			const start = "https://game.awsapps.com/start"
			write(t, home+"/.aws/config", "[profile game]\nsso_start_url = "+start+"\nsso_region = eu-central-1\n"+
				"sso_account_id = 1\nsso_role_name = r\n")
			sum := sha1.Sum([]byte(start)) // #nosec G401 -- likewise
			write(t, home+"/.aws/sso/cache/"+hex.EncodeToString(sum[:])+".json",
				fmt.Sprintf(`{"accessToken":"a","expiresAt":%q}`, later))
			t.Setenv("AWS_ENDPOINT_URL_SSO", serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/federation/credentials" || r.Header.Get("X-Amz-Sso_bearer_token") != "a" {
					t.Errorf("SSO: got %s with %v", r.URL, r.Header)
				}
				fmt.Fprintf(w, `{"roleCredentials":{"accessKeyId":"SSOKEY","secretAccessKey":"s","sessionToken":"t","expiration":%d}}`,
					time.Now().Add(time.Hour).UnixMilli())
			}))
			return Options{Profile: "game"}
		}, "SSOKEY", "t"},
		{"web identity (IRSA)", func(t *testing.T, home string) Options {
			write(t, home+"/token", "jwt")
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/penstock")
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", home+"/token")
			t.Setenv("AWS_ENDPOINT_URL_STS", fakeSTS(t, "AssumeRoleWithWebIdentity", "",
				map[string]string{"WebIdentityToken": "jwt", "RoleArn": "arn:aws:iam::1:role/penstock"}))
			return Options{}
		}, "ROLEKEY", "t"},
		{"ECS", func(t *testing.T, _ string) Options {
			t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret")
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "secret" {
					t.Errorf("ECS: got %v", r.Header)
				}
				fmt.Fprintf(w, `{"AccessKeyId":"ECSKEY","SecretAccessKey":"s","Token":"t","Expiration":%q}`, later)
			})+"/creds")
			return Options{}
		}, "ECSKEY", "t"},
		{"EC2", func(t *testing.T, _ string) Options {
			t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", serve(t, imds))
			return Options{}
		}, "EC2KEY", "t"},
		{"role_arn", func(t *testing.T, _ string) Options {
			t.Setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			t.Setenv("AWS_ENDPOINT_URL_STS", fakeSTS(t, "AssumeRole", "",
				map[string]string{"RoleArn": "arn:aws:iam::1:role/r", "RoleSessionName": "penstock"}))
			return Options{RoleARN: "arn:aws:iam::1:role/r"}
		}, "ROLEKEY", "t"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.set(t, plain(t))
			o.Region = "eu-central-1"
			c, err := o.Config().Credentials.Retrieve(t.Context())
			if err != nil || c.AccessKeyID != tt.key || c.SessionToken != tt.token {
				t.Errorf("got %s with token %q, %v; want %s with %q", c.AccessKeyID, c.SessionToken, err, tt.key, tt.token)
			}
		})
	}
}

// imds answers as EC2's metadata service does, only in version 2.
func imds(w http.ResponseWriter, r *http.Request) {
	const role = "/latest/meta-data/iam/security-credentials/"
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
		io.WriteString(w, "session")
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "session":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == role:
		io.WriteString(w, "penstock")
	case r.URL.Path == role+"penstock":
		fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":"EC2KEY","SecretAccessKey":"s","Token":"t","Expiration":%q}`, later)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// If there are no credentials, the error names the source that was asked and its reason.
func TestNoCredentials(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(t *testing.T, home string) Options
		want []string
	}{
		{"nothing at all", func(*testing.T, string) Options { return Options{} },
			[]string{"no credentials from AWS's default chain", "EC2"}},
		{"half a pair", func(*testing.T, string) Options { return Options{AccessKey: "k"} }, []string{"storage.secret_key", "empty"}},
		{"an unknown profile", func(*testing.T, string) Options { return Options{Profile: "gmae"} },
			[]string{"the profile gmae (storage.profile)", "gmae"}},
		{"a token that the role does not trust", func(t *testing.T, home string) Options {
			write(t, home+"/token", "jwt")
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/penstock")
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", home+"/token")
			t.Setenv("AWS_ENDPOINT_URL_STS", fakeSTS(t, "AssumeRoleWithWebIdentity", "AccessDenied", nil))
			return Options{}
		}, []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AccessDenied (status 403): not you"}},
		{"a container without a role", func(t *testing.T, _ string) Options {
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				io.WriteString(w, `{"code":"NoRole","message":"this task has none"}`)
			})+"/creds")
			return Options{}
		}, []string{"the container's role", "this task has none"}},
		{"a CA bundle that is gone", func(t *testing.T, _ string) Options {
			t.Setenv("AWS_CA_BUNDLE", "/does/not/exist.pem")
			return Options{AccessKey: "k", SecretKey: "s"}
		}, []string{"AWS_CA_BUNDLE", "/does/not/exist.pem"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.set(t, plain(t))
			o.Region = "eu-central-1"
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			client := s3.NewFromConfig(o.Config(), func(o *s3.Options) { o.BaseEndpoint = new("http://127.0.0.1:1") })
			_, err := client.ListBuckets(ctx, nil)
			if unsigned, ok := errors.AsType[CredentialsError](err); !ok || CodeOf(err) != "" {
				t.Fatalf("got %v with code %q, want a CredentialsError without a code; %v", err, CodeOf(err), unsigned)
			}
			for _, want := range tt.want {
				if text := (Brief{err}).Error(); !strings.Contains(text, want) || strings.Contains(text, "\n") {
					t.Errorf("got %q, want %q in one line", text, want)
				}
			}
		})
	}
}

// The SDK's own lines go to the log, as details, and not to standard error between the lines of a command.
func TestSDKLog(t *testing.T) {
	plain(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	var logged bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	cfg := Options{Region: "eu-central-1"}.Config()
	if _, err := cfg.Credentials.Retrieve(t.Context()); err == nil {
		t.Fatal("got credentials, want an error")
	}
	if want := `level=DEBUG msg="AWS SDK: falling back to IMDSv1`; !strings.Contains(logged.String(), want) {
		t.Errorf("logged %q, want %q", &logged, want)
	}
}

// The environment variable of all AWS tools adds a private CA, with keys in the configuration and without.
func TestCABundle(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `<ListAllMyBucketsResult/>`)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	for _, o := range []Options{{AccessKey: "k", SecretKey: "s"}, {}} {
		for _, trusted := range []bool{false, true} {
			home := plain(t)
			t.Setenv("AWS_ACCESS_KEY_ID", "k")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			if trusted {
				ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
				write(t, home+"/ca.pem", string(ca))
				t.Setenv("AWS_CA_BUNDLE", home+"/ca.pem")
			}
			o.Region = "us-east-1"
			client := s3.NewFromConfig(o.Config(), func(o *s3.Options) { o.BaseEndpoint = &server.URL })
			if _, err := client.ListBuckets(t.Context(), nil); (err == nil) != trusted {
				t.Errorf("key %q, bundle %t: got %v", o.AccessKey, trusted, err)
			}
		}
	}
}
