// OpenTelemetry's SDK with the exporters of one encoding: spans of LLM calls, and log records.
const { SpanKind, SpanStatusCode, trace, context } = require('@opentelemetry/api');
const { SeverityNumber } = require('@opentelemetry/api-logs');
const { resourceFromAttributes, defaultResource } = require('@opentelemetry/resources');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { LoggerProvider, BatchLogRecordProcessor } = require('@opentelemetry/sdk-logs');
const { url, key, sent } = require('./run');

module.exports = async ({ OTLPTraceExporter, OTLPLogExporter }, compression) => {
  const options = { headers: { Authorization: 'Bearer ' + key }, timeoutMillis: 60000, compression };
  const resource = defaultResource().merge(resourceFromAttributes({ 'service.name': 'shop' }));
  const tracers = new BasicTracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: url + '/v1/traces', ...options }), { maxExportBatchSize: 5, exportTimeoutMillis: 60000 })],
  });
  const tracer = tracers.getTracer('llm', '1.0');
  const parent = tracer.startSpan('agent', { startTime: 1795319112000 });
  for (let n = 0; n < 12; n++) {
    const old = n % 2 ? { 'gen_ai.system': 'openai', 'gen_ai.usage.prompt_tokens': 100 + n } : { 'gen_ai.provider.name': 'openai', 'gen_ai.usage.input_tokens': 100 + n };
    const attributes = {
      n, ...old, 'gen_ai.request.model': 'gpt-x', 'gen_ai.request.temperature': 0.5, 'gen_ai.response.finish_reasons': ['stop'],
      'gen_ai.conversation.id': 'c-' + n % 3, 'user.id': 'u-' + n % 2, whole: 9007199254740000,
    };
    const span = tracer.startSpan('chat gpt-x', { kind: SpanKind.CLIENT, startTime: 1795319112000 + n, attributes }, trace.setSpan(context.active(), parent));
    span.addEvent('token', { first: true }, 1795319112001 + n);
    if (n === 3) span.setStatus({ code: SpanStatusCode.ERROR, message: 'too long' });
    span.end(1795319112000 + n + 250);
    const ids = span.spanContext();
    sent({
      name: 'chat gpt-x', user_id: 'u-' + n % 2, session_id: 'c-' + n % 3,
      properties: {
        n, whole: 9007199254740000, duration_ms: 250, kind: 'client', status: n === 3 ? 'error' : 'unset', trace_id: ids.traceId, span_id: ids.spanId, parent_span_id: parent.spanContext().spanId,
        gen_ai: {
          provider: { name: 'openai' }, request: { model: 'gpt-x', temperature: 0.5 }, response: { finish_reasons: ['stop'] }, conversation: { id: 'c-' + n % 3 },
          usage: n % 2 ? { prompt_tokens: 100 + n, input_tokens: 100 + n } : { input_tokens: 100 + n },
        },
        $envelope: { resource: { service: { name: 'shop' } }, scope: { name: 'llm', version: '1.0' } },
      },
    });
  }
  parent.end(1795319113000);
  sent({ name: 'agent', properties: { duration_ms: 1000, trace_id: parent.spanContext().traceId, span_id: parent.spanContext().spanId } });
  await tracers.shutdown();

  const loggers = new LoggerProvider({
    resource,
    processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter({ url: url + '/v1/logs', ...options }), maxExportBatchSize: 5, exportTimeoutMillis: 60000 })],
  });
  const logger = loggers.getLogger('app');
  for (let n = 0; n < 10; n++) {
    logger.emit({ severityNumber: SeverityNumber.WARN, severityText: 'warning', body: { n, text: 'hot', list: [1, 'two', { three: 3.5 }] }, attributes: { 'session.id': 's-' + n, deep: { a: { b: n } } } });
    sent({ name: 'log', session_id: 's-' + n, properties: { severity: 'warning', severity_number: 13, body: { n, text: 'hot' }, deep: { a: { b: n } } } });
  }
  for (let n = 0; n < 2; n++) { // two equal records are two events
    logger.emit({ eventName: 'cart.opened', timestamp: 1795319112000, observedTimestamp: 1795319112000, body: 'again', attributes: { 'enduser.id': 'u' } });
    sent({ name: 'cart.opened', user_id: 'u', properties: { body: 'again' } });
  }
  await loggers.shutdown();
};
