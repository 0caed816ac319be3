// The scripts share a fake of OpenAI's API on this machine, and the sums that the test expects of the rows.
const http = require('http');
const [, , url, key, model, count] = process.argv;

// usage is the usage of the n-th call. Its cost is computed by the prices of the test.
function usage(n) {
  return { input: 100 + n, cached: 60, output: 20, reasoning: 5, cost: ((40 + n) * 2.5 + 60 * 1.25 + 20 * 10) / 1e6 };
}

const sums = { calls: 0, input: 0, cached: 0, output: 0, reasoning: 0, cost: 0 };
function next() {
  const u = usage(sums.calls++);
  for (const k of Object.keys(u)) sums[k] += u[k];
  return u;
}

// start serves chat completions and responses, and resolves to the base URL.
function start() {
  const server = http.createServer((req, res) => {
    req.resume().on('end', () => {
      const u = next();
      res.setHeader('content-type', 'application/json');
      res.end(JSON.stringify(req.url.endsWith('/responses') ? {
        id: 'resp-' + sums.calls, object: 'response', created_at: 1, model, status: 'completed',
        output: [{ type: 'message', id: 'msg', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: 'ho', annotations: [] }] }],
        usage: {
          input_tokens: u.input, input_tokens_details: { cached_tokens: u.cached }, output_tokens: u.output,
          output_tokens_details: { reasoning_tokens: u.reasoning }, total_tokens: u.input + u.output,
        },
      } : {
        id: 'chat-' + sums.calls, object: 'chat.completion', created: 1, model,
        choices: [{ index: 0, message: { role: 'assistant', content: 'ho' }, finish_reason: 'stop' }],
        usage: {
          prompt_tokens: u.input, prompt_tokens_details: { cached_tokens: u.cached }, completion_tokens: u.output,
          completion_tokens_details: { reasoning_tokens: u.reasoning }, total_tokens: u.input + u.output,
        },
      }));
    });
  });
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve({ base: `http://127.0.0.1:${server.address().port}/v1`, close: () => { server.closeAllConnections(); server.close(); } })));
}

module.exports = { url, key, model, count: Number(count), next, start, done: () => console.log(JSON.stringify(sums)) };
