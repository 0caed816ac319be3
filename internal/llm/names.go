// Package llm knows how clients describe a call of a language model: which
// attribute or property holds which field, by whose specification.
//
// The receiver stores the value of a Renamed attribute under the name of now as
// well. The view llm_calls is generated from the names of now and from Names, so
// that it reads few columns however many conventions there are (view.go).
package llm

// A Source is the specification that defines a name.
type Source string

// The versions are those that were read when the names were written down.
const (
	native     Source = "Penstock, docs/guides/llm.md"
	semconv    Source = "https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/ (1.38)"
	semconvOld Source = "https://github.com/open-telemetry/semantic-conventions/blob/v1.26.0/docs/gen-ai (deprecated)"
	inference  Source = "https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md (JS 2.12)"
	traceloop  Source = "https://github.com/traceloop/openllmetry, opentelemetry-semantic-conventions-ai (0.4)"
	vercel     Source = "https://ai-sdk.dev/docs/ai-sdk-core/telemetry (ai 6)"
	pydantic   Source = "https://ai.pydantic.dev/logfire (pydantic-ai 1)"
	litellm    Source = "https://docs.litellm.ai/docs/proxy/logging_spec (StandardLoggingPayload)"
	langchain  Source = "https://reference.langchain.com/python/langchain-core/messages (UsageMetadata)"
	langfuse   Source = "https://langfuse.com/integrations/native/opentelemetry (SDK 5), and its ingestion API"
	helicone   Source = "https://docs.helicone.ai/getting-started/integration-method/manual-logger-curl"
	openrouter Source = "https://openrouter.ai/docs/guides/features/broadcast"
	openai     Source = "https://platform.openai.com/docs/api-reference (Chat Completions and Responses)"
	anthropic  Source = "https://docs.anthropic.com/en/api/messages"
	gemini     Source = "https://ai.google.dev/api/generate-content#UsageMetadata"
	bedrock    Source = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html"
	deepseek   Source = "https://api-docs.deepseek.com/guides/kv_cache"
	langsmith  Source = "https://github.com/langchain-ai/langsmith-sdk, its OpenTelemetry exporter (0.4)"
	kernel     Source = "https://github.com/microsoft/semantic-kernel, its model diagnostics (1.37 and before)"
	strands    Source = "https://github.com/strands-agents/sdk-python, its tracer (1)"
	sentry     Source = "https://github.com/getsentry/sentry-conventions (gen_ai)"
)

// A Field is what a name describes in a call.
type Field string

// The fields that are read from names of their own.
const (
	Provider      Field = "provider"
	Model         Field = "model"
	Operation     Field = "operation"
	CallID        Field = "call_id"
	Conversation  Field = "conversation"
	Input         Field = "input"
	Output        Field = "output"
	FinishReason  Field = "finish_reason"
	Error         Field = "error"
	Cost          Field = "cost_usd"
	CostParts     Field = "parts of cost_usd" // an object: its total, or else the sum of its numbers
	Latency       Field = "latency_ms"
	LatencySec    Field = "latency_ms, in seconds"
	FirstToken    Field = "first_token_ms"
	FirstTokenSec Field = "first_token_ms, in seconds"
	FirstTokenAt  Field = "first_token_ms, as a time"
	FirstTokenAny Field = "first_token_ms, in seconds, or in milliseconds if those exceed duration_ms"
	BeginAt       Field = "latency_ms, its begin as a time"
	EndAt         Field = "latency_ms, its end as a time"
	Usage         Field = "token usage" // an object, see Members; JSON in a text is one as well
)

// The fields that are counts; Cached, CacheWrite and Reasoning are parts of the
// input or output. The last three are read within usage objects alone.
const (
	InputTokens  Field = "input_tokens"
	OutputTokens Field = "output_tokens"
	TotalTokens  Field = "total_tokens"
	Cached       Field = "cached_tokens"
	CacheWrite   Field = "cache_write_tokens"
	Reasoning    Field = "reasoning_tokens"
	UsageCost    Field = "cost_usd, within usage"
	InputCost    Field = "input part of cost_usd"
	OutputCost   Field = "output part of cost_usd"
)

// A Name is an attribute, or a path of properties, that holds a field. Of
// several that a call has, the first counts that holds a usable value.
type Name struct {
	Field Field
	Path  string
	From  Source
}

// Names are the names that the view reads, but for those within usage objects.
// An attribute that is Renamed is read under its name of now alone.
var Names = []Name{
	{Provider, "gen_ai.provider.name", semconv},
	{Provider, "gen_ai.system", semconvOld},
	{Provider, "provider", native},
	{Provider, "custom_llm_provider", litellm},
	{Provider, "metadata.ls_provider", langchain},
	{Provider, "langfuse.observation.metadata.ls_provider", langfuse},

	{Model, "gen_ai.request.model", semconv},
	{Model, "gen_ai.response.model", semconv},
	{Model, "model", native},
	{Model, "model_name", pydantic},
	{Model, "provided_model_name", langfuse},
	{Model, "providerRequest.json.model", helicone},
	{Model, "providerResponse.json.model", helicone},

	{Operation, "gen_ai.operation.name", semconv},
	{Operation, "operation", native},
	{Operation, "call_type", litellm},
	{Operation, "ai.operationId", vercel},
	{Operation, "langfuse.observation.type", langfuse},
	{Operation, "openinference.span.kind", inference},
	{Operation, "langsmith.span.kind", langsmith},

	{CallID, "call_id", native},
	{CallID, "request_id", native},
	{CallID, "gen_ai.response.id", semconv},
	{CallID, "span_id", native},
	{CallID, "id", litellm},

	{Conversation, "conversation_id", native},
	{Conversation, "gen_ai.conversation.id", semconv},

	{InputTokens, "gen_ai.usage.input_tokens", semconv},
	{InputTokens, "input_tokens", native},
	{InputTokens, "prompt_tokens", litellm},
	{OutputTokens, "gen_ai.usage.output_tokens", semconv},
	{OutputTokens, "output_tokens", native},
	{OutputTokens, "completion_tokens", litellm},
	{TotalTokens, "gen_ai.usage.total_tokens", traceloop},
	{TotalTokens, "total_tokens", native},
	{Cached, "gen_ai.usage.cache_read.input_tokens", semconv},
	{Cached, "cached_tokens", native},
	{CacheWrite, "gen_ai.usage.cache_creation.input_tokens", semconv},
	{CacheWrite, "cache_write_tokens", native},
	{Reasoning, "gen_ai.usage.reasoning.output_tokens", semconv},
	{Reasoning, "reasoning_tokens", native},

	{Usage, "langfuse.observation.usage_details", langfuse},
	{Usage, "usage", native},
	{Usage, "usage_details", langfuse},
	{Usage, "usage_metadata", langchain},
	{Usage, "usageMetadata", gemini},
	{Usage, "response.usage", litellm},
	{Usage, "metadata.usage_object", litellm},
	{Usage, "providerResponse.json.usage", helicone},
	{Usage, "providerResponse.json.usageMetadata", helicone},

	{Cost, "cost_usd", native},
	{Cost, "gen_ai.usage.cost", openrouter},
	{Cost, "response_cost", litellm},
	{Cost, "operation.cost", pydantic},
	{CostParts, "langfuse.observation.cost_details", langfuse},
	{CostParts, "cost_details", langfuse},
	{CostParts, "llm.cost", inference},
	{CostParts, "gen_ai.cost", litellm},

	{Latency, "latency_ms", native},
	{Latency, "duration_ms", native},
	{BeginAt, "startTime", litellm},
	{BeginAt, "start_time", langfuse},
	{EndAt, "endTime", litellm},
	{EndAt, "end_time", langfuse},
	{LatencySec, "response_time", litellm},

	{FirstToken, "first_token_ms", native},
	{FirstToken, "ai.response.msToFirstChunk", vercel},
	{FirstToken, "timing.timeToFirstToken", helicone},
	{FirstTokenSec, "gen_ai.response.time_to_first_chunk", semconv},
	{FirstTokenAny, "gen_ai.server.time_to_first_token", strands},
	{FirstTokenAt, "langfuse.observation.completion_start_time", langfuse},
	{FirstTokenAt, "completion_start_time", langfuse},
	{FirstTokenAt, "completionStartTime", litellm},

	{Error, "error.message", native},
	{Error, "error", native},
	{Error, "error_str", litellm},
	{Error, "langfuse.observation.status_message", langfuse},
	{Error, "status_message", native},
	{Error, "error.type", semconv},

	{FinishReason, "gen_ai.response.finish_reasons", semconv},
	{FinishReason, "finish_reason", native},
	{FinishReason, "stop_reason", anthropic},
	{FinishReason, "response.choices[].finish_reason", litellm},
	{FinishReason, "providerResponse.json.choices[].finish_reason", helicone},
	{FinishReason, "providerResponse.json.stop_reason", helicone},

	{Input, "gen_ai.input.messages", semconv},
	{Input, "gen_ai.prompt", traceloop},
	{Input, "input.value", inference},
	{Input, "llm.input_messages", inference},
	{Input, "langfuse.observation.input", langfuse},
	{Input, "ai.prompt.messages", vercel},
	{Input, "ai.prompt", vercel},
	{Input, "ai.values", vercel},
	{Input, "pydantic_ai.all_messages", pydantic},
	{Input, "all_messages_events", pydantic},
	{Input, "traceloop.entity.input", traceloop},
	{Input, "input", native},
	{Input, "messages", native},
	{Input, "prompt", native},
	{Input, "providerRequest.json.messages", helicone},
	{Input, "providerRequest.json", helicone},

	{Output, "gen_ai.output.messages", semconv},
	{Output, "gen_ai.completion", traceloop},
	{Output, "output.value", inference},
	{Output, "llm.output_messages", inference},
	{Output, "langfuse.observation.output", langfuse},
	{Output, "ai.response.text", vercel},
	{Output, "ai.response.object", vercel},
	{Output, "ai.response.toolCalls", vercel},
	{Output, "ai.embeddings", vercel},
	{Output, "traceloop.entity.output", traceloop},
	{Output, "output", native},
	{Output, "completion", native},
	{Output, "response", native},
	{Output, "providerResponse.textBody", helicone},
	{Output, "providerResponse.json", helicone},
}

// RenamedNames is how many names of now are in Renamed.
const RenamedNames = 14

// Renamed are attributes of spans and log records whose values the receiver also stores under the current name. If
// several are present, the first counts. In all of them, the input includes the cached tokens, and the output the
// reasoning tokens.
var Renamed = [RenamedNames]struct {
	Now    string
	Before []Attribute
}{
	{"gen_ai.provider.name", []Attribute{
		{"gen_ai.system", semconvOld},
		{"llm.provider", inference},
		{"llm.vendor", traceloop},
		{"llm.system", inference},
		{"ai.model.provider", vercel},
	}},
	{"gen_ai.operation.name", []Attribute{
		{"llm.request.type", traceloop},
	}},
	{"gen_ai.request.model", []Attribute{
		{"llm.request.model", traceloop},
		{"llm.model_name", inference},
		{"llm.request.model_name", inference},
		{"embedding.model_name", inference},
		{"langfuse.observation.model.name", langfuse},
		{"ai.model.id", vercel},
	}},
	{"gen_ai.response.model", []Attribute{
		{"llm.response.model", traceloop},
		{"llm.response.model_name", inference},
		{"ai.response.model", vercel},
	}},
	{"gen_ai.response.id", []Attribute{
		{"ai.response.id", vercel},
	}},
	{"gen_ai.usage.input_tokens", []Attribute{
		{"gen_ai.usage.prompt_tokens", semconvOld},
		{"llm.usage.prompt_tokens", traceloop},
		{"llm.token_count.prompt", inference},
		{"gen_ai.response.prompt_tokens", kernel},
		{"ai.usage.inputTokens", vercel},
		{"ai.usage.promptTokens", vercel},
		{"ai.usage.tokens", vercel},
	}},
	{"gen_ai.usage.output_tokens", []Attribute{
		{"gen_ai.usage.completion_tokens", semconvOld},
		{"llm.usage.completion_tokens", traceloop},
		{"llm.token_count.completion", inference},
		{"gen_ai.response.completion_tokens", kernel},
		{"ai.usage.outputTokens", vercel},
		{"ai.usage.completionTokens", vercel},
	}},
	{"gen_ai.usage.total_tokens", []Attribute{
		{"llm.usage.total_tokens", traceloop},
		{"llm.token_count.total", inference},
		{"ai.usage.totalTokens", vercel},
	}},
	{"gen_ai.usage.cache_read.input_tokens", []Attribute{
		{"gen_ai.usage.cache_read_input_tokens", traceloop},
		{"llm.usage.cache_read_input_tokens", traceloop},
		{"llm.token_count.prompt_details.cache_read", inference},
		{"ai.usage.inputTokenDetails.cacheReadTokens", vercel},
		{"ai.usage.cachedInputTokens", vercel},
		{"gen_ai.usage.details.cache_read_tokens", pydantic},
		{"gen_ai.usage.details.cache_read_input_tokens", pydantic},
		{"gen_ai.usage.details.cached_tokens", pydantic},
		{"gen_ai.usage.cached_tokens", traceloop},
		{"gen_ai.usage.input_tokens.cached", sentry},
	}},
	{"gen_ai.usage.cache_creation.input_tokens", []Attribute{
		{"gen_ai.usage.cache_creation_input_tokens", traceloop},
		{"llm.usage.cache_creation_input_tokens", traceloop},
		{"llm.token_count.prompt_details.cache_write", inference},
		{"ai.usage.inputTokenDetails.cacheWriteTokens", vercel},
		{"gen_ai.usage.details.cache_write_tokens", pydantic},
		{"gen_ai.usage.details.cache_creation_input_tokens", pydantic},
		{"gen_ai.usage.cache_write_input_tokens", strands},
		{"gen_ai.usage.input_tokens.cache_write", sentry},
	}},
	{"gen_ai.usage.reasoning.output_tokens", []Attribute{
		{"gen_ai.usage.reasoning_tokens", traceloop},
		{"llm.usage.reasoning_tokens", traceloop},
		{"llm.token_count.completion_details.reasoning", inference},
		{"ai.usage.outputTokenDetails.reasoningTokens", vercel},
		{"ai.usage.reasoningTokens", vercel},
		{"gen_ai.usage.details.reasoning_tokens", pydantic},
		{"gen_ai.usage.output_tokens.reasoning", sentry},
	}},
	{"gen_ai.usage.cost", []Attribute{
		{"gen_ai.usage.total_cost", openrouter},
		{"llm.usage.total_cost", traceloop},
	}},
	{FinishReasons, []Attribute{
		{"gen_ai.response.finish_reason", semconvOld},
		{"llm.response.finish_reason", traceloop},
		{"llm.finish_reason", inference},
		{"gen_ai.completion.0.finish_reason", traceloop},
		{"ai.response.finishReason", vercel},
	}},
	{"gen_ai.conversation.id", []Attribute{
		{"gen_ai.thread.id", semconvOld},
	}},
}

// An Attribute is one that was renamed, or is a convention's own.
type Attribute struct {
	Name string
	From Source
}

// FinishReasons is an array now, and was one text.
const FinishReasons = "gen_ai.response.finish_reasons"

// A Rename is the place of an attribute in Renamed. Among several attributes with one Now, the lowest Rank counts; 0 is
// the current name itself.
type Rename struct{ Now, Rank int }

// Renames finds a record's attributes in Renamed, by their names.
var Renames = renames()

func renames() map[string]Rename {
	m := map[string]Rename{}
	for i, r := range Renamed {
		m[r.Now] = Rename{i, 0}
		for rank, old := range r.Before {
			m[old.Name] = Rename{i, rank + 1}
		}
	}
	return m
}

// Users and Sessions are the attributes that name the user and the session of a
// record, the first that it has, or else its resource.
var (
	Users = []Attribute{
		{"user.id", semconv},
		{"enduser.id", semconvOld},
		{"langfuse.user.id", langfuse},
		{"ai.telemetry.metadata.userId", vercel},
		{"traceloop.association.properties.user_id", traceloop},
	}
	Sessions = []Attribute{
		{"gen_ai.conversation.id", semconv},
		{"session.id", semconv},
		{"langfuse.session.id", langfuse},
		{"ai.telemetry.metadata.sessionId", vercel},
		{"traceloop.association.properties.session_id", traceloop},
	}
)

// A Member is a path within a usage object.
type Member struct {
	Count Field
	Path  string
	// Kind says how the member relates to the others, see Kinds.
	Kind Kind
	From Source
}

// A Kind says whether a count contains others.
type Kind uint8

// An input of kind Whole includes the cached tokens. A part of kind Beside is not included in the input or output next
// to it. A Plain input includes its plain parts, but not those of kind Beside.
const (
	Plain Kind = iota
	Whole
	Beside
)

// Members are the names within usage objects.
var Members = []Member{
	{InputTokens, "input_tokens", Plain, semconv},
	{InputTokens, "prompt_tokens", Whole, openai},
	{InputTokens, "input", Plain, langfuse},
	{InputTokens, "inputTokens", Plain, vercel},
	{InputTokens, "promptTokens", Whole, vercel},
	{InputTokens, "promptTokenCount", Whole, gemini},
	{InputTokens, "prompt_token_count", Whole, gemini},
	{InputTokens, "tokens", Whole, vercel},

	{OutputTokens, "output_tokens", Plain, semconv},
	{OutputTokens, "completion_tokens", Whole, openai},
	{OutputTokens, "output", Plain, langfuse},
	{OutputTokens, "outputTokens", Plain, vercel},
	{OutputTokens, "completionTokens", Whole, vercel},
	{OutputTokens, "candidatesTokenCount", Plain, gemini},
	{OutputTokens, "candidates_token_count", Plain, gemini},

	{TotalTokens, "total_tokens", Plain, semconv},
	{TotalTokens, "total", Plain, langfuse},
	{TotalTokens, "totalTokens", Plain, vercel},
	{TotalTokens, "totalTokenCount", Plain, gemini},
	{TotalTokens, "total_token_count", Plain, gemini},

	{Cached, "prompt_tokens_details.cached_tokens", Plain, openai},
	{Cached, "input_tokens_details.cached_tokens", Plain, openai},
	{Cached, "input_token_details.cache_read", Plain, langchain},
	{Cached, "inputTokenDetails.cacheReadTokens", Plain, vercel},
	{Cached, "cachedInputTokens", Plain, vercel},
	{Cached, "cache_read_tokens", Plain, pydantic},
	{Cached, "cached_tokens", Plain, native},
	{Cached, "cached_input_tokens", Plain, native},
	{Cached, "prompt_cache_hit_tokens", Plain, deepseek},
	{Cached, "cachedContentTokenCount", Plain, gemini},
	{Cached, "cached_content_token_count", Plain, gemini},
	{Cached, "cache_read_input_tokens", Beside, anthropic},
	{Cached, "cacheReadInputTokens", Beside, bedrock},
	{Cached, "input_cached_tokens", Beside, langfuse},
	{Cached, "input_cache_read", Beside, langfuse},
	{Cached, "input_cache_read_tokens", Beside, langfuse},

	{CacheWrite, "prompt_tokens_details.cache_write_tokens", Plain, openrouter},
	{CacheWrite, "prompt_tokens_details.cache_creation_tokens", Plain, litellm},
	{CacheWrite, "input_token_details.cache_creation", Plain, langchain},
	{CacheWrite, "inputTokenDetails.cacheWriteTokens", Plain, vercel},
	{CacheWrite, "cache_write_tokens", Plain, pydantic},
	{CacheWrite, "cache_creation_input_tokens", Beside, anthropic},
	{CacheWrite, "cacheWriteInputTokens", Beside, bedrock},
	{CacheWrite, "input_cache_creation", Beside, langfuse},
	{CacheWrite, "input_cache_write", Beside, langfuse},

	{Reasoning, "completion_tokens_details.reasoning_tokens", Plain, openai},
	{Reasoning, "output_tokens_details.reasoning_tokens", Plain, openai},
	{Reasoning, "output_token_details.reasoning", Plain, langchain},
	{Reasoning, "outputTokenDetails.reasoningTokens", Plain, vercel},
	{Reasoning, "reasoningTokens", Plain, vercel},
	{Reasoning, "reasoning_tokens", Plain, traceloop},
	{Reasoning, "output_reasoning", Beside, langfuse},
	{Reasoning, "output_reasoning_tokens", Beside, langfuse},
	{Reasoning, "thoughtsTokenCount", Beside, gemini},
	{Reasoning, "thoughts_token_count", Beside, gemini},

	{UsageCost, "cost", Plain, openrouter},
	{UsageCost, "total_cost", Plain, openrouter},
	{UsageCost, "totalCost", Plain, langfuse},
	{InputCost, "input_cost", Plain, openrouter},
	{InputCost, "inputCost", Plain, langfuse},
	{OutputCost, "output_cost", Plain, openrouter},
	{OutputCost, "outputCost", Plain, langfuse},
}

// Details are attributes that hold several counts as a text: LangSmith's exporter
// for Python writes a dict as Python prints it, that for JavaScript writes JSON.
var Details = []struct {
	Count     Field
	Path, Key string
	From      Source
}{
	{Cached, "gen_ai.usage.input_token_details", "cache_read", langsmith},
	{CacheWrite, "gen_ai.usage.input_token_details", "cache_creation", langsmith},
	{Reasoning, "gen_ai.usage.output_token_details", "reasoning", langsmith},
}

// Calls are the words by which a span or event says that it is a call: an
// operation, a kind, or a type. Words are compared in lower case.
var Calls = []string{
	"chat", "text_completion", "generate_content", "embeddings", "response", "responses", // semconv
	"llm", "embedding", // OpenInference
	"generation",                                                                        // Langfuse
	"completion",                                                                        // OpenLLMetry
	"acompletion", "atext_completion", "aembedding", "aresponses", "anthropic_messages", // LiteLLM
	"agenerate_content", "generate_content_stream", "agenerate_content_stream",
	"chat.completions", "chat.streaming_completions", "text.completions", "text.streaming_completions", // Semantic Kernel
}

// Never are operations that are not calls, even if they report token usage.
var Never = []string{
	"execute_tool", "retrieval", "create_agent", // semconv
	"tool", "retriever", "reranker", "evaluator", "guardrail", // OpenInference, OpenLLMetry, Langfuse
	"event", "ai.toolcall",
	"prompt", "parser", // LangSmith
}

// foreign are attributes of spans for calls of something else. They count unless the span itself says that it is a
// call. RPC attributes are missing here, because the AWS SDK's span of Bedrock is an RPC and reports usage without an
// operation.
var foreign = []string{
	"http.request.method", "http.method", "db.system.name", "db.system", "messaging.system",
}
