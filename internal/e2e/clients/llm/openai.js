// OpenAI's client with OpenInference's instrumentation, inside an agent's span with the sums.
const provider = require('./otel');
const { trace, context } = require('@opentelemetry/api');
const { setSession, setUser } = require('@arizeai/openinference-core');
const { OpenAIInstrumentation } = require('@arizeai/openinference-instrumentation-openai');
const OpenAI = require('openai');
const { model, count, start, done } = require('./fake');

new OpenAIInstrumentation({ tracerProvider: provider }).manuallyInstrument(OpenAI);
(async () => {
  const fake = await start();
  const openai = new OpenAI({ apiKey: 'none', baseURL: fake.base });
  const tracer = provider.getTracer('agents');
  for (let n = 0; n < count; n += 5) {
    const agent = tracer.startSpan('agent', { attributes: { 'openinference.span.kind': 'AGENT', 'llm.model_name': model } });
    const inside = setSession(setUser(trace.setSpan(context.active(), agent), { userId: 'u-' + model }), { sessionId: 's-1' });
    await context.with(inside, async () => {
      for (let i = n; i < n + 5; i++) await openai.chat.completions.create({ model, messages: [{ role: 'user', content: 'hi' }] });
    });
    agent.setAttributes({ 'llm.token_count.prompt': 500, 'llm.token_count.completion': 100 });
    agent.end();
  }
  fake.close();
  await provider.shutdown();
  done();
})().catch(e => { console.error(e); process.exit(1); });
