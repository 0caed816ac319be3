package cloudflare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/version"
)

// api calls Cloudflare's HTTP API. The official Go library would also need one call for each operation. Its documented
// way to set a field imports the client of every Cloudflare product. It also repeats a pull that timed out, whose
// leases are then lost.
type api struct {
	endpoint, account string
	jurisdiction      string // of an R2 bucket; empty: none
	token             func() string
	client            *http.Client
}

const (
	callTimeout = 30 * time.Second
	maxAnswer   = 32 << 20 // bytes; 100 messages of 128 KB are 17 MB in base64
)

// Error codes of Cloudflare.
const (
	codeToken         = 10000 // wrong, expired, or without the permission
	codeQueue         = 11000 // no such queue
	codeMessagesQueue = 10104 // no such queue, from the endpoints of messages
	codeTaken         = 11009 // a queue of this name exists
	codeConsumer      = 11004 // the queue has a consumer
	codeBucket        = 10006 // no such bucket
)

// apiError is an error answer of the API.
type apiError struct {
	status, code int
	message      string
	wait         time.Duration // Retry-After; 0: none
}

func (e *apiError) Error() string {
	text := fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		text += fmt.Sprintf(": %.300s", e.message)
	}
	if e.code != 0 {
		text += fmt.Sprintf(" (code %d)", e.code)
	}
	switch {
	case e.rejected():
		return "Cloudflare rejects the API token: it is wrong or expired, belongs to another account, or lacks a " +
			"permission: " + text
	case e.status == http.StatusTooManyRequests:
		return "Cloudflare's rate limit is reached: " + text
	case e.status == http.StatusMethodNotAllowed:
		return `the queue has no HTTP pull consumer; run "penstock setup": ` + text
	}
	return "Cloudflare answers " + text
}

// rejected reports whether the token is at fault. Cloudflare has several codes for that.
func (e *apiError) rejected() bool {
	return e.code == codeToken || e.status == http.StatusUnauthorized || e.status == http.StatusForbidden
}

func (e *apiError) missing() bool { return e.code == codeQueue || e.code == codeMessagesQueue }

// as returns the apiError within an error, or an empty one.
func as(err error) *apiError {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e
	}
	return &apiError{}
}

// Problem is a kind of error, for advice to people.
type Problem int

// The kinds of errors.
const (
	Unreachable Problem = iota // no answer
	Token                      // Cloudflare rejects the token
	Busy                       // the rate limit is reached
	Answer                     // Cloudflare answers with another error
)

// ProblemOf returns the kind of a Queue's error.
func ProblemOf(err error) Problem {
	switch e := as(err); {
	case e.status == 0:
		return Unreachable
	case e.rejected():
		return Token
	case e.status == http.StatusTooManyRequests:
		return Busy
	}
	return Answer
}

// call makes one request below the account, and decodes the result. Every error is an outage: no object is at fault.
func (a *api) call(ctx context.Context, method, path string, in, out any) error {
	err := a.do(ctx, method, path, in, out)
	if err == nil {
		return nil
	}
	return retry.AsCode(retry.Outage, as(err).code, show.HideIn(err, a.token()))
}

func (a *api) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, a.endpoint+"/accounts/"+a.account+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.token())
	req.Header.Set("Content-Type", "application/json")
	if a.jurisdiction != "" {
		req.Header.Set("cf-r2-jurisdiction", a.jurisdiction)
	}
	req.Header.Set("User-Agent", "penstock/"+version.Current().Version)
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return decode(resp, text, out)
}

// decode reads the envelope of an answer.
func decode(resp *http.Response, text []byte, out any) error {
	var answer struct {
		Success bool            `json:"success"`
		Result  json.RawMessage `json:"result"`
		Errors  []struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	err := json.Unmarshal(text, &answer)
	if resp.StatusCode != http.StatusOK || !answer.Success {
		e := &apiError{status: resp.StatusCode, wait: retryAfter(resp)}
		var messages []string
		for _, one := range answer.Errors {
			if e.code == 0 {
				e.code = one.Code
			}
			messages = append(messages, one.Message)
		}
		e.message = strings.Join(messages, "; ")
		if err != nil { // perhaps a proxy's page
			e.message = string(text)
		}
		return e
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Result, out); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}

// retryAfter is how long the server asks to wait, at most a minute.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, time.Minute)
}
