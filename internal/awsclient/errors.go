package awsclient

import (
	"errors"
	"fmt"
	"net/url"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// CredentialsError says that no request could be signed: there are no credentials, or the service that gives them
// refuses. It is about the environment, and not about what was asked for.
type CredentialsError struct {
	Err  error
	From string // where they were to come from
}

func (e CredentialsError) Error() string {
	return fmt.Sprintf("no credentials from %s: %s", e.From, deepest(e.Err))
}

func (e CredentialsError) Unwrap() error { return e.Err }

// deepest is the part of an error's text that says most.
func deepest(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return shortAPI(api, StatusOf(err))
	}
	if sent, ok := errors.AsType[*url.Error](err); ok {
		return sent.Error()
	}
	return err.Error()
}

// CodeOf is the service's own code of an error, as NoSuchBucket; empty: the service did not answer.
func CodeOf(err error) string {
	if _, unsigned := errors.AsType[CredentialsError](err); unsigned {
		return ""
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// StatusOf is the HTTP status of the answer; 0: there was none.
func StatusOf(err error) int {
	if re, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return re.HTTPStatusCode()
	}
	return 0
}

// Brief is an error of the SDK without the names of its requests, which take hundreds of characters.
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
