// Vercel's AI SDK with its telemetry, by Chat Completions and by Responses.
const provider = require('./otel');
const { generateText } = require('ai');
const { createOpenAI } = require('@ai-sdk/openai');
const { model, count, start, done } = require('./fake');

(async () => {
  const fake = await start();
  const openai = createOpenAI({ apiKey: 'none', baseURL: fake.base });
  for (let n = 0; n < count; n++) {
    await generateText({
      model: n % 2 ? openai.chat(model) : openai.responses(model), prompt: 'hi',
      experimental_telemetry: { isEnabled: true, metadata: { userId: 'u-' + model, sessionId: 's-1' } },
    });
  }
  fake.close();
  await provider.shutdown();
  done();
})().catch(e => { console.error(e); process.exit(1); });
