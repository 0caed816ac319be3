// A page of another origin, in a browser, that sends events in every way that a page can.
const open = require('./open');
const { url, key, sent } = require('../run');

// inPage runs in the page, and returns errors.
async function inPage(url, key) {
  const wrong = [];
  const want = (what, is) => is || wrong.push(what);
  const events = url + '/v1/events';
  const json = (name, n) => JSON.stringify({ name, user_id: 'u-1', n });
  want('beacon: a blob', navigator.sendBeacon(events + '?key=' + key, new Blob([json('beacon_blob', 1)], { type: 'application/json' })));
  want('beacon: text', navigator.sendBeacon(events + '?key=' + key, json('beacon_text', 2)));

  const send = async (what, path, status, headers, body, credentials) => {
    const answer = await fetch(url + path, { method: 'POST', headers, body, credentials }).catch(e => ({ status: e.message }));
    want(what + ': ' + answer.status, answer.status === status);
    return answer.status === status ? answer.json() : {};
  };
  const auth = { Authorization: 'Bearer ' + key };
  want('the answer is read', (await send('fetch', '/v1/events', 202, { ...auth, 'Content-Type': 'application/json' }, json('fetch', 3), 'include')).accepted === 1);
  const packed = new Blob([json('gzip', 4)]).stream().pipeThrough(new CompressionStream('gzip'));
  await send('gzip', '/v1/events', 202, { 'X-API-Key': key, 'Content-Encoding': 'gzip' }, await new Response(packed).arrayBuffer());
  await send('CloudEvents', '/v1/events', 202, { ...auth, 'Content-Type': 'application/json', 'ce-specversion': '1.0', 'ce-id': 'c', 'ce-source': '/page', 'ce-type': 'cloud', 'ce-userid': 'u-1' }, '{"n":5}');
  await send('OTLP', '/v1/logs', 200, { ...auth, 'Content-Type': 'application/json' },
    '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"otlp","attributes":[{"key":"n","value":{"intValue":6}},{"key":"user.id","value":{"stringValue":"u-1"}}]}]}]}]}');
  await send('Segment', '/v1/track', 200, { Authorization: 'Basic ' + btoa(key + ':'), 'Content-Type': 'application/json' }, '{"type":"track","event":"segment","userId":"u-1","properties":{"n":7}}');
  await send('a wrong key', '/v1/events', 401, { Authorization: 'Bearer wrong' }, json('wrong', 0));

  const pixel = query => new Promise(done => {
    const image = new Image();
    image.onload = () => done(image.naturalWidth === 1 && image.naturalHeight === 1);
    image.onerror = () => done(false);
    image.src = url + '/v1/pixel.gif?' + query;
  });
  const query = new URLSearchParams({ key, name: 'pixel', user_id: 'u-1', title: 'é & "x"' });
  for (let n = 0; n < 2; n++) want('pixel', await pixel(query)); // no cache may answer the second

  addEventListener('pagehide', () => {
    fetch(events, { method: 'POST', headers: auth, body: json('keepalive', 8), keepalive: true });
    navigator.sendBeacon(events + '?key=' + key, json('beacon_at_the_end', 9));
  });
  return wrong;
}

open('', async (browser, site) => {
  const tab = await browser.newPage();
  tab.on('console', line => console.error(line.text()));
  await tab.goto(site);
  const wrong = await tab.evaluate(inPage, url, key);
  if (wrong.length > 0) throw new Error(wrong.join('; '));
  await tab.goto('about:blank');
  await new Promise(later => setTimeout(later, 2000)); // the page is closed; its last requests may still be on their way
}).then(() => {
  for (const [n, name] of ['', 'beacon_blob', 'beacon_text', 'fetch', 'gzip', 'cloud', 'otlp', 'segment', 'keepalive', 'beacon_at_the_end'].entries()) {
    if (n > 0) sent({ name, user_id: 'u-1', properties: { n } });
  }
  for (let n = 0; n < 2; n++) sent({ name: 'pixel', user_id: 'u-1', properties: { title: 'é & "x"' } });
}).catch(e => {
  console.error(e);
  process.exit(1);
});
