// OpenTelemetry's SDK, used by the instrumentations of other libraries.
const { NodeTracerProvider } = require('@opentelemetry/sdk-trace-node');
const { BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-proto');
const { url, key } = require('./fake');

const exporter = new OTLPTraceExporter({ url: url + '/v1/traces', headers: { Authorization: 'Bearer ' + key }, timeoutMillis: 60000, compression: 'gzip' });
const provider = new NodeTracerProvider({
  spanProcessors: [new BatchSpanProcessor(exporter, { maxQueueSize: 10000, maxExportBatchSize: 200, exportTimeoutMillis: 60000 })],
});
provider.register();
module.exports = provider;
