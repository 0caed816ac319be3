package awsclient

import (
	"errors"
	"fmt"
	"net/url"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// CredentialsError says that a request could not be signed: there are no credentials, or their source refuses. It is a
// fault of the environment, not of the request.
type CredentialsError struct {
	Err  error
	From string // where credentials were expected
}

func (e CredentialsError) Error() string {
	return fmt.Sprintf("no credentials from %s: %s", e.From, deepest(e.Err))
}

func (e CredentialsError) Unwrap() error { return e.Err }

// deepest returns the most specific part of an error's text.
func deepest(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return shortAPI(api, StatusOf(err))
	}
	if sent, ok := errors.AsType[*url.Error](err); ok {
		return sent.Error()
	}
	return err.Error()
}

// CodeOf returns the service's error code, such as NoSuchBucket; empty: the service did not answer.
func CodeOf(err error) string {
	if _, unsigned := errors.AsType[CredentialsError](err); unsigned {
		return ""
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// StatusOf returns the HTTP status of the answer; 0: none.
func StatusOf(err error) int {
	if re, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return re.HTTPStatusCode()
	}
	return 0
}

// Brief shows an error of the SDK without its request details, which are hundreds of characters long.
type Brief struct{ Err error }

func (e Brief) Unwrap() error { return e.Err }

func (e Brief) Error() string {
	if unsigned, ok := errors.AsType[CredentialsError](e.Err); ok {
		return unsigned.Error()
	}
	if api, ok := errors.AsType[smithy.APIError](e.Err); ok {
		return shortAPI(api, StatusOf(e.Err))
	}
	if sent, ok := errors.AsType[*url.Error](e.Err); ok {
		return sent.Err.Error()
	}
	if op, ok := errors.AsType[*smithy.OperationError](e.Err); ok {
		return op.Err.Error()
	}
	return e.Err.Error()
}

func shortAPI(api smithy.APIError, status int) string {
	text := fmt.Sprintf("%s (status %d)", api.ErrorCode(), status)
	if message := api.ErrorMessage(); message != "" && message != "UnknownError" {
		text += ": " + message
	}
	return text
}
