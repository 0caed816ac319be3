// Package awsclient has what clients of AWS services share: credentials, connections, and short errors.
package awsclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
)

// Options are credentials and connection. Without AccessKey, credentials come from the SDK's default chain:
// environment, shared profile, SSO, web identity, ECS, EC2.
type Options struct {
	Region       string
	AccessKey    string
	SecretKey    string
	SessionToken string // empty: the keys are not temporary
	Profile      string // in the shared files; empty: AWS_PROFILE, or default
	RoleARN      string // to assume with the credentials; empty: none

	TLS *tls.Config // for https; nil: the system's CAs and AWS_CA_BUNDLE
}

// Config returns the SDK's configuration without connecting. If the options or the environment are wrong, each request
// fails with that error.
func (o Options) Config() aws.Config {
	cfg, err := o.load()
	if err != nil {
		cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, err
		})
	} else if o.RoleARN != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), o.RoleARN,
			func(a *stscreds.AssumeRoleOptions) { a.RoleSessionName = "penstock" }))
	}
	cfg.Credentials = explained{cfg.Credentials, o}
	// Otherwise every PUT has a checksum trailer, which R2 rejects with 501.
	cfg.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	cfg.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	// Callers have their own backoff. This covers a lost connection.
	cfg.RetryMaxAttempts = 2
	return cfg
}

func (o Options) load() (aws.Config, error) {
	client := o.client()
	plain := aws.Config{Region: o.Region, HTTPClient: client}
	if o.AccessKey == "" && o.SecretKey == "" {
		cfg, err := config.LoadDefaultConfig(context.Background(), config.WithRegion(o.Region),
			config.WithSharedConfigProfile(o.Profile), config.WithHTTPClient(client),
			config.WithLogger(logging.LoggerFunc(debug)))
		if err != nil {
			return plain, err
		}
		return cfg, nil
	}
	// With keys in the configuration, ignore the files and profiles of the environment.
	plain.Credentials = credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, o.SessionToken)
	bundle := os.Getenv("AWS_CA_BUNDLE")
	if bundle == "" || o.TLS != nil {
		return plain, nil
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(bundle)
	if err != nil {
		return plain, fmt.Errorf("AWS_CA_BUNDLE: %w", err)
	}
	if !pool.AppendCertsFromPEM(text) {
		return plain, fmt.Errorf("AWS_CA_BUNDLE: %s has no certificate in PEM", bundle)
	}
	plain.HTTPClient = client.WithTransportOptions(func(t *http.Transport) {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	})
	return plain, nil
}

// debug logs a line of the SDK. By default the SDK writes it to standard error, between the lines of commands.
func debug(_ logging.Classification, format string, v ...any) {
	slog.Debug("AWS SDK: " + fmt.Sprintf(format, v...))
}

func (o Options) client() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = 16
		t.ResponseHeaderTimeout = time.Minute
		if o.TLS != nil {
			t.TLSClientConfig = o.TLS
		}
	})
}

// explained adds to an error of missing credentials where they were looked for.
type explained struct {
	aws.CredentialsProvider
	opts Options
}

func (e explained) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := e.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		err = CredentialsError{Err: err, From: e.opts.source()}
	}
	return c, err
}

// source names the source of the credentials.
func (o Options) source() string {
	switch {
	case o.RoleARN != "":
		return "the role " + o.RoleARN + " (storage.role_arn)"
	case o.AccessKey != "" || o.SecretKey != "":
		return "storage.access_key and storage.secret_key"
	case o.Profile != "":
		return "the profile " + o.Profile + " (storage.profile)"
	case os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "":
		return "the web identity of AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE"
	case os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")+os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != "":
		return "the container's role (ECS or EKS Pod Identity)"
	case os.Getenv("AWS_PROFILE") != "":
		return "the profile " + os.Getenv("AWS_PROFILE") + " (AWS_PROFILE)"
	}
	return "AWS's default chain: environment, shared profile, EC2 instance role"
}
