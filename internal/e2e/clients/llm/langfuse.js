// Langfuse's SDK, which sends OTLP as JSON to its own path.
const { NodeTracerProvider } = require('@opentelemetry/sdk-trace-node');
const { LangfuseSpanProcessor } = require('@langfuse/otel');
const { setLangfuseTracerProvider, startObservation, propagateAttributes } = require('@langfuse/tracing');
const { url, key, model, count, next, done } = require('./fake');

const processor = new LangfuseSpanProcessor({ publicKey: key, secretKey: 'any', baseUrl: url, flushAt: 100, timeout: 60, mediaUploadEnabled: false });
const provider = new NodeTracerProvider({ spanProcessors: [processor] });
provider.register(); // its context carries user and session to each observation
setLangfuseTracerProvider(provider);
(async () => {
  for (let n = 0; n < count; n++) {
    await propagateAttributes({ userId: 'u-' + model, sessionId: 's-1' }, async () => {
      const agent = startObservation('agent', { input: 'hi' }, { asType: 'agent' });
      const generation = agent.startObservation('answer', { model, input: [{ role: 'user', content: 'hi' }] }, { asType: 'generation' });
      const u = next();
      generation.update({
        output: 'ho', completionStartTime: new Date(),
        usageDetails: {
          prompt_tokens: u.input, prompt_tokens_details: { cached_tokens: u.cached }, completion_tokens: u.output,
          completion_tokens_details: { reasoning_tokens: u.reasoning }, total_tokens: u.input + u.output,
        },
        costDetails: { input: u.cost / 2, output: u.cost / 2 },
      }).end();
      agent.end();
    });
    if (n % 100 === 99) await processor.forceFlush();
  }
  await provider.shutdown();
  done();
})().catch(e => { console.error(e); process.exit(1); });
