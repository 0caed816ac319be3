// Package litellm accepts what LiteLLM's generic API callback posts:
// https://docs.litellm.ai/docs/observability/generic_api
//
// An event is a StandardLoggingPayload, alone, in an array, or one on each line:
// https://docs.litellm.ai/docs/proxy/logging_spec. All its members become properties.
//
//	name      llm_call
//	user      end_user
//	session   trace_id
//	id        id
package litellm

import (
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// Routes are the callback's routes.
func Routes() []*protocol.Route {
	return []*protocol.Route{{Name: "litellm", Paths: []string{"/litellm"}, Protocol: litellm{}}}
}

type litellm struct{ protocol.Base }

// others are types of log entries that are not calls of a model. Such an event is named after its type.
var others = []string{
	"call_mcp_tool", "list_mcp_tools", "create_batch", "acreate_batch", "retrieve_batch", "aretrieve_batch",
	"create_file", "acreate_file",
	"afile_content", "file_content", "afile_delete", "file_delete", "afile_list", "file_list", "afile_retrieve",
	"file_retrieve",
}

func (p litellm) Events(r *protocol.Request, body []byte, to protocol.Sink) *errcode.Error {
	return protocol.Values(p, r, body, to)
}

func (litellm) Map(d *protocol.Draft, members []jsonscan.Member) {
	d.Name = []byte(protocol.LLMCall)
	for i := range members {
		m := &members[i]
		switch string(m.Key) {
		case "id":
			d.SetID(d.Text(m, protocol.MaxID))
		case "startTime":
			d.SetTime(m)
		case "trace_id":
			d.Session = d.Text(m, protocol.MaxID)
		case "end_user":
			if user := d.Text(m, protocol.MaxID); len(user) > 0 {
				d.User = user
			}
		case "metadata":
			if user := protocol.PlainText(protocol.Dig(m.Value, "user_api_key_user_id")); len(d.User) == 0 &&
				len(user) <= protocol.MaxID {
				d.User = user // the key's user, if the request names none
			}
		case "call_type":
			if kind := d.Text(m, protocol.MaxName); slices.Contains(others, string(kind)) {
				d.Name = kind
			}
		}
		d.Property(m)
	}
}
