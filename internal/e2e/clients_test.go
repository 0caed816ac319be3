package e2e

import (
	"os/exec"
	"testing"
)

// Node's own fetch (undici): keep-alive over many requests, a chunked stream, a
// compressed body, a Blob, a form with a file; each checks its answer.
const fetchScript = `
const zlib = require('zlib');
const [url, key] = process.argv.slice(1);
const headers = { authorization: 'Bearer ' + key };
async function send(what, body, more = {}, extra = {}) {
  const r = await fetch(url, { method: 'POST', headers: { ...headers, ...more }, body, ...extra });
  const a = await r.json();
  if (r.status !== 202 || a.rejected !== 0) throw new Error(what + ': ' + r.status + ' ' + JSON.stringify(a));
  return a.accepted;
}
(async () => {
  let n = 0;
  for (let i = 0; i < 200; i++) {
    const event = JSON.stringify({ name: 'one', i, text: 'zażółć 🐉' });
    n += await send('object', event, { 'content-type': 'application/json' });
  }
  n += await send('array', JSON.stringify(Array.from({ length: 50 }, (_, i) => ({ name: 'array', i }))));
  const lines = Array.from({ length: 1000 }, (_, i) => JSON.stringify({ name: 'line', i })).join('\n');
  n += await send('gzip', zlib.gzipSync(lines), { 'content-encoding': 'gzip', 'content-type': 'application/x-ndjson' });
  n += await send('deflate', zlib.deflateSync(lines), { 'content-encoding': 'deflate' });
  n += await send('blob', new Blob([JSON.stringify({ name: 'blob' })], { type: 'text/plain' }));
  const form = new FormData();
  form.append('event', JSON.stringify({ name: 'form', properties: { level: 7 } }));
  form.append('replay', new Blob([Buffer.alloc(3 << 20, 'ab')], { type: 'video/mp4' }), 'run.mp4');
  n += await send('form', form);
  async function* parts() {
    for (let i = 0; i < 100; i++) yield Buffer.from(JSON.stringify({ name: 'chunk', i }) + '\n');
  }
  n += await send('chunked', ReadableStream.from(parts()),
    { 'content-type': 'application/x-ndjson' }, { duplex: 'half' });
  console.log(n);
})().catch(e => { console.error(e); process.exit(1); });
`

func TestNodeFetch(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	s.start("l1", "load")
	out, err := exec.CommandContext(t.Context(), "node", "-e", fetchScript, "--", r.URL+"/v1/events", key).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := string(out); got != "2352\n" {
		t.Errorf("the client counts %s", got)
	}
	s.rows("events", 2352)
	got := one[string](s,
		"SELECT concat(properties.replay.$blob.content_type.:String, ' ', properties.replay.$blob.name.:String, ' ', "+
			"toString(properties.replay.$blob.bytes.:Int64), ' ', toString(properties.level.:Int64)) FROM events WHERE name = "+
			"'form'")
	if got != "video/mp4 run.mp4 3145728 7" {
		t.Errorf("the form is %s", got)
	}
}
