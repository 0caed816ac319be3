package receiver

import (
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// LiteLLM's generic API callback, which posts to any URL:
// https://docs.litellm.ai/docs/observability/generic_api
//
// An event is a StandardLoggingPayload, alone, in an array, or one a line:
// https://docs.litellm.ai/docs/proxy/logging_spec. Its members are properties.
// name is llm_call, user end_user, session trace_id, and the id is its own.
var litellm = []*dialect{
	{name: "litellm", paths: []string{"/litellm"}, decode: (*request).decode, event: litellmEvent},
}

const llmCall = "llm_call"

// litellmOther are the types of what the proxy logs besides calls of a model. An
// event of such a type has it as its name.
var litellmOther = []string{
	"call_mcp_tool", "list_mcp_tools", "create_batch", "acreate_batch", "retrieve_batch", "aretrieve_batch",
	"create_file", "acreate_file",
	"afile_content", "file_content", "afile_delete", "file_delete", "afile_list", "file_list", "afile_retrieve",
	"file_retrieve",
}

func litellmEvent(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	d := q.draft()
	d.name = []byte(llmCall)
	for i := range members {
		m := &members[i]
		switch string(m.Key) {
		case "id":
			d.id = d.text(m, maxID)
		case "startTime":
			d.setTime(m)
		case "trace_id":
			d.session = d.text(m, maxID)
		case "end_user":
			if user := d.text(m, maxID); len(user) > 0 {
				d.user = user
			}
		case "metadata":
			if user := plainText(dig(m.Value, "user_api_key_user_id")); len(d.user) == 0 && len(user) <= maxID {
				d.user = user // of the key, where the request names none
			}
		case "call_type":
			if kind := d.text(m, maxName); slices.Contains(litellmOther, string(kind)) {
				d.name = kind
			}
		}
		q.property(m)
	}
	return d.event()
}
