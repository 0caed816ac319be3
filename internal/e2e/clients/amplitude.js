// Amplitude's client. It sends to serverUrl without adding a path.
const amplitude = require('@amplitude/analytics-node');
const { url, key, sent } = require('./run');

(async () => {
  const client = amplitude.createInstance();
  await client.init(key, { serverUrl: url + '/2/httpapi', flushQueueSize: 5, flushIntervalMillis: 200, logLevel: amplitude.Types.LogLevel.None }).promise;
  const all = [];
  for (let n = 0; n < 20; n++) {
    all.push(client.track('level_up', { n, tags: ['a', 'b'] }, { user_id: 'user-' + n % 3, session_id: 1795319112000 }));
    sent({ name: 'level_up', user_id: 'user-' + n % 3, session_id: '1795319112000', properties: { n, tags: ['a', 'b'] } });
  }
  const insert_id = '0192d4b0-7c1e-7a55-9d0e-0242ac120003';
  all.push(client.track('bought', { n: 100 }, { device_id: 'device-1', insert_id, time: Date.parse('2026-01-02T03:04:05.678Z') }));
  sent({ name: 'bought', user_id: 'device-1', event_id: insert_id, properties: { n: 100, $envelope: { device_id: 'device-1' } } });
  const who = new amplitude.Identify();
  who.set('plan', 'pro');
  all.push(client.identify(who, { user_id: 'user-1' }));
  sent({ name: '$identify', user_id: 'user-1', properties: { $envelope: { user_properties: { $set: { plan: 'pro' } } } } });
  for (const { promise } of all) {
    const { code, message } = await promise;
    // If the connection is cut, the client gives up (code 0), although the receiver has the events.
    if (code !== 200 && code !== 0) throw new Error(code + ' ' + message);
  }
  // Send the same to /batch.
  const batch = amplitude.createInstance();
  await batch.init(key, { serverUrl: url + '/batch', flushQueueSize: 5, flushIntervalMillis: 200 }).promise;
  const done = batch.track('batched', { n: 101 }, { user_id: 'user-1' });
  sent({ name: 'batched', user_id: 'user-1', properties: { n: 101 } });
  const { code, message } = await done.promise;
  if (code !== 200) throw new Error(code + ' ' + message);
})();
