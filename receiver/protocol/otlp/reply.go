package otlp

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// partly describes a partly rejected request.
func partly(o *protocol.Outcome) string {
	if o.Rejected == 0 {
		return ""
	}
	w := fmt.Appendf(nil, "%d of %d records are refused", o.Rejected, o.Found)
	for i, e := range o.Rejects[:min(len(o.Rejects), 5)] {
		w = fmt.Appendf(w, "%s record %d (%s): %s", []string{":", ";"}[min(i, 1)], e.Index, e.Code, e.Message)
	}
	return strings.ToValidUTF8(string(w), "\uFFFD")
}

// Codes of google.rpc.Status.
const (
	invalidArgument  = 3
	permissionDenied = 7
	unimplemented    = 12
	unavailable      = 14
	unauthenticated  = 16
)

// statusOf returns an error's HTTP status, with code and message of a google.rpc.Status. Clients retry only on 429,
// 502, 503 and 504.
func statusOf(o *protocol.Outcome) (status, code int, message string) {
	message = partly(o)
	if o.Refused != nil {
		message = o.Refused.Code.String() + ": " + strings.ToValidUTF8(o.Refused.Message, "\uFFFD")
		if o.Refused.Code == errcode.Timeout {
			return http.StatusServiceUnavailable, unavailable, message // otherwise clients would not retry
		}
		if o.Refused.Code.Retryable() {
			return o.Status, unavailable, message
		}
	}
	switch o.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return o.Status, invalidArgument, message
	case http.StatusUnauthorized:
		return o.Status, unauthenticated, message
	case http.StatusForbidden:
		return o.Status, permissionDenied, message
	}
	return o.Status, unimplemented, message // wrong method
}

func (s jsonOf) Reply(o *protocol.Outcome, b []byte) protocol.Reply {
	b = append(b, '{')
	if o.Good() {
		if o.Rejected > 0 {
			b = append(protocol.AppendKey(b, "partialSuccess"), '{')
			b = protocol.AppendString(b, s.rejected, strconv.Itoa(o.Rejected)) // JSON has an int64 as string
			b = append(protocol.AppendString(b, "errorMessage", partly(o)), '}')
		}
		return protocol.Reply{Status: http.StatusOK, Body: append(b, "}\n"...)}
	}
	status, code, message := statusOf(o)
	b = protocol.AppendString(protocol.AppendInt(b, "code", code), "message", message)
	return protocol.Reply{Status: status, Body: append(b, "}\n"...)}
}

func (s protoOf) Reply(o *protocol.Outcome, b []byte) protocol.Reply {
	if !o.Good() {
		status, code, message := statusOf(o)
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), uint64(code))
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), message)
		return protocol.Reply{Status: status, ContentType: protobuf, Body: b}
	}
	if o.Rejected > 0 {
		part := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(o.Rejected))
		part = protowire.AppendString(protowire.AppendTag(part, 2, protowire.BytesType), partly(o))
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), part)
	}
	return protocol.Reply{Status: http.StatusOK, ContentType: protobuf, Body: b}
}
