package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
)

// Executor runs operations: locally, or on a server.
type Executor func(ctx context.Context, op Operation, params any, out sink) error

// Remote runs operations on a server's admin listener.
func Remote(server, token string, client *http.Client) Executor {
	return func(ctx context.Context, op Operation, params any, out sink) error {
		target := strings.TrimSuffix(server, "/") + op.path
		var body io.Reader
		if op.method == http.MethodGet {
			target += "?" + query(params).Encode()
		} else {
			text, err := json.Marshal(params)
			if err != nil {
				return err
			}
			body = bytes.NewReader(text)
		}
		req, err := http.NewRequestWithContext(ctx, op.method, target, body)
		if err != nil {
			return fmt.Errorf("--server: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("%s does not answer: %w", server, withoutURL(err))
		}
		defer resp.Body.Close()
		dec := json.NewDecoder(resp.Body)
		for {
			item := op.newItem()
			l := line{Item: item}
			if err := dec.Decode(&l); err != nil {
				if resp.StatusCode != http.StatusOK {
					return fmt.Errorf("%s answered %s", target, resp.Status)
				}
				return fmt.Errorf("%s: the answer was cut off: %w", server, err)
			}
			switch {
			case resp.StatusCode == http.StatusUnauthorized:
				return fmt.Errorf("%s rejects the token: set --token or PENSTOCK_ADMIN_TOKEN to its admin.token", server)
			case l.Error != "" && resp.StatusCode == http.StatusBadRequest:
				return Usagef("%s", l.Error)
			case l.Error != "" && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnprocessableEntity:
				return fmt.Errorf("%s answered %s: %s", server, resp.Status, l.Error)
			case l.Error != "":
				return errors.New(l.Error)
			case l.Done:
				return nil
			case l.Progress != nil:
				out.progress(*l.Progress)
			default:
				if err := out.item(item); err != nil {
					return err
				}
			}
		}
	}
}

// newItem returns a pointer to a new item of the operation.
func (op Operation) newItem() any {
	if op.item == nil {
		return new(json.RawMessage)
	}
	return reflect.New(reflect.TypeOf(op.item)).Interface()
}

// Local runs operations directly on bucket, queue and table.
func Local(o *Operator) Executor {
	return func(ctx context.Context, op Operation, params any, out sink) error {
		return op.carryOut(ctx, o, params, sink{
			item: func(item any) error {
				// A pointer, as from a server.
				p := reflect.New(reflect.TypeOf(item))
				p.Elem().Set(reflect.ValueOf(item))
				return out.item(p.Interface())
			},
			progress: out.progress,
		})
	}
}
