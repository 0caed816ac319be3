// PostHog's client, with its default compression.
const { PostHog } = require('posthog-node');
const { url, key, sent } = require('./run');

const posthog = new PostHog(key, { host: url, flushAt: 5, flushInterval: 200, fetchRetryCount: 10, fetchRetryDelay: 200 });
posthog.on('error', e => console.error('error', e));
const awake = setInterval(() => {}, 1000); // its own timers do not keep a process alive
(async () => {
  for (let n = 0; n < 20; n++) {
    posthog.capture({ distinctId: 'u-' + n % 3, event: 'level_up', properties: { n, $session_id: 's-1', tags: ['a', 'b'] } });
    sent({ name: 'level_up', user_id: 'u-' + n % 3, session_id: 's-1', properties: { n, tags: ['a', 'b'] } });
  }
  posthog.identify({ distinctId: 'u-1', properties: { plan: 'pro' } });
  sent({ name: '$identify', user_id: 'u-1', properties: { $set: { plan: 'pro' } } });
  const uuid = '0192d4b0-7c1e-7a55-9d0e-0242ac120002';
  posthog.capture({ distinctId: 'u-1', event: 'bought', uuid, timestamp: new Date('2026-01-02T03:04:05.678Z'), groups: { guild: 'g' } });
  sent({ name: 'bought', user_id: 'u-1', event_id: uuid, properties: { $groups: { guild: 'g' } } });
  await posthog.flush();
  const flags = await posthog.getAllFlags('u-1');
  if (Object.keys(flags).length) throw new Error('flags ' + JSON.stringify(flags));
  await posthog.shutdown();
  clearInterval(awake);
})();
