// Langfuse's client.
const { Langfuse } = require('langfuse');
const { url, key, sent } = require('./run');

const langfuse = new Langfuse({ publicKey: key, secretKey: 'whatever', baseUrl: url, flushAt: 5, flushInterval: 200, fetchRetryCount: 10, fetchRetryDelay: 200 });
langfuse.on('error', e => console.error('error', e));
langfuse.on('warning', e => console.error('warning', e));
(async () => {
  for (let n = 0; n < 10; n++) {
    const trace = langfuse.trace({ id: 't-' + n, name: 'chat', userId: 'u-' + n % 3, sessionId: 's-1', input: { n }, tags: ['a', 'b'] });
    sent({ name: 'trace-create', user_id: 'u-' + n % 3, session_id: 's-1', properties: { id: 't-' + n, name: 'chat', input: { n }, tags: ['a', 'b'] } });
    const generation = trace.generation({ id: 'g-' + n, name: 'answer', model: 'large', input: [{ role: 'user', content: 'Hello "you"' }] });
    sent({ name: 'generation-create', properties: { id: 'g-' + n, traceId: 't-' + n, model: 'large' } });
    generation.end({ output: 'hi', usage: { input: 12, output: n } });
    sent({ name: 'generation-update', properties: { id: 'g-' + n, traceId: 't-' + n, output: 'hi' } });
  }
  langfuse.score({ id: 'sc-1', traceId: 't-1', name: 'quality', value: 0.5 });
  sent({ name: 'score-create', properties: { id: 'sc-1', name: 'quality', value: 0.5 } });
  await langfuse.shutdownAsync();
})();
