// RudderStack's client: Segment's API, compressed.
const Analytics = require('@rudderstack/rudder-sdk-node');
const { url, key, sent } = require('./run');

const analytics = new Analytics(key, { dataPlaneUrl: url, flushAt: 5, flushInterval: 200, gzip: true });
for (let n = 0; n < 20; n++) {
  analytics.track({ userId: 'u-' + n % 3, event: 'purchase', properties: { n, price: 1.5 + n } });
  sent({ name: 'purchase', user_id: 'u-' + n % 3, properties: { n, price: 1.5 + n } });
}
analytics.alias({ previousId: 'old', userId: 'new' });
sent({ name: 'alias', user_id: 'new', properties: { $envelope: { previousId: 'old' } } });
analytics.flush();
