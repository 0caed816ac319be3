// CloudEvents in all three modes. The library never retries, so this script does.
const { CloudEvent, HTTP, emitterFor } = require('cloudevents');
const { url, key, sent } = require('./run');

const post = async ({ headers, body }) => {
  for (let tries = 0; tries < 8; tries++) {
    const answer = await fetch(url + '/v1/events', { method: 'POST', headers: { ...headers, Authorization: 'Bearer ' + key }, body }).catch(e => ({ status: 0, e }));
    if (answer.status === 202) return;
    console.error(answer.status, answer.e ?? await answer.text());
    await new Promise(again => setTimeout(again, 100));
  }
};
const event = (n, more) => new CloudEvent({
  type: 'com.shop.bought', source: '/shop/' + n % 3, id: 'order-' + n, time: '2026-11-22T03:45:12.345Z', subject: 's-' + n, userid: 'u-' + n, sessionid: 'x', tier: 'gold', data: { n, list: [1, { a: 'b' }] }, ...more,
});
const row = (n, properties) => sent({
  name: 'com.shop.bought', user_id: 'u-' + n, session_id: 'x',
  properties: properties ?? { n, list: [1, { a: 'b' }], $envelope: { source: '/shop/' + n % 3, id: 'order-' + n, subject: 's-' + n, tier: 'gold', specversion: '1.0' } },
});

(async () => {
  const structured = emitterFor(post, { binding: HTTP, mode: 'structured' });
  const binary = emitterFor(post, { binding: HTTP, mode: 'binary' });
  for (let n = 0; n < 6; n++) {
    await (n % 2 ? structured : binary)(event(n));
    row(n);
  }
  const batch = [10, 11, 12].map(n => (row(n), event(n)));
  await post({ headers: { 'Content-Type': 'application/cloudevents-batch+json' }, body: JSON.stringify(batch) });

  await binary(event(20, { data: 'plain text', datacontenttype: 'text/plain' }));
  row(20, { data: 'plain text', $envelope: { datacontenttype: 'text/plain' } });
  await binary(event(21, { data: 'bare text' })); // the library declares it as JSON
  row(21, { data: 'bare text' });
  await binary(event(22, { data: Uint8Array.from([1, 2, 255]), datacontenttype: 'application/octet-stream' }));
  row(22, { data_base64: 'AQL/' });
  await structured(event(23, { data: Uint8Array.from([1, 2, 255]), datacontenttype: 'application/octet-stream' }));
  row(23, { data_base64: 'AQL/' });
})();
