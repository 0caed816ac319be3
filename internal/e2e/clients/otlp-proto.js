// OTLP as protobuf, compressed.
require('./otlp')({ ...require('@opentelemetry/exporter-trace-otlp-proto'), ...require('@opentelemetry/exporter-logs-otlp-proto') }, 'gzip');
