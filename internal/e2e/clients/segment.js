// Segment's own client.
const { Analytics } = require('@segment/analytics-node');
const { url, key, sent } = require('./run');

const analytics = new Analytics({ writeKey: key, host: url, flushAt: 5, maxRetries: 10 });
analytics.on('error', e => console.error('error', e));
for (let n = 0; n < 20; n++) {
  analytics.track({ userId: 'u-' + n % 3, event: 'level_up', properties: { n, level: n * 2, tags: ['a', 'b'] } });
  sent({ name: 'level_up', user_id: 'u-' + n % 3, properties: { n, level: n * 2, tags: ['a', 'b'] } });
}
analytics.identify({ userId: 'u-1', traits: { n: 100, plan: 'pro' } });
sent({ name: 'identify', user_id: 'u-1', properties: { n: 100, plan: 'pro' } });
analytics.page({ anonymousId: 'a-1', name: 'Shop', properties: { n: 101, path: '/shop' } });
sent({ name: 'page', user_id: 'a-1', properties: { n: 101, path: '/shop', $envelope: { name: 'Shop', type: 'page' } } });
analytics.group({ userId: 'u-1', groupId: 'guild-7', traits: { n: 102 } });
sent({ name: 'group', user_id: 'u-1', properties: { n: 102, $envelope: { groupId: 'guild-7' } } });
analytics.closeAndFlush();
