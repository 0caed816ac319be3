// OTLP as JSON.
require('./otlp')({ ...require('@opentelemetry/exporter-trace-otlp-http'), ...require('@opentelemetry/exporter-logs-otlp-http') });
