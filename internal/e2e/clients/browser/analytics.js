// Published browser clients of product analytics, each in a tab. ANALYTICS is JSON with the address for each client.
const open = require('./open');
const { key, sent } = require('../run');
const to = JSON.parse(process.env.ANALYTICS);
const later = ms => new Promise(done => setTimeout(done, ms));
const wrong = []; // messages that no page should print
const patience = 9000; // ms, for retries: posthog-js retries every 3 s

// The page has more text than a row may hold, and the text does not compress well.
const text = Array.from({ length: 3000 }, (_, n) => require('crypto').createHash('sha256').update(String(n)).digest('hex')).join(' ');
const body = '<h1>a heading</h1><button id="press">press</button><input id="field"><p hidden>' + text + '</p>';

async function tab(browser, site, script, name) {
  const t = await (await browser.createBrowserContext()).newPage(); // one context would share their storage
  t.on('console', line => {
    console.error(name, line.type(), line.text().slice(0, 300));
    if (line.type() === 'error' && !/ 503 |net::ERR_/.test(line.text())) wrong.push(name + ': ' + line.text());
  });
  t.on('pageerror', e => wrong.push(name + ': ' + e.message));
  await t.goto(site + '/' + name);
  await t.addScriptTag({ url: '/lib/' + script });
  return t;
}

// posthog-js reports each captured event to the page, also automatic ones ($pageview, …). It sends the last events as
// a beacon when the page closes.
async function posthog(browser, site) {
  const t = await tab(browser, site, 'posthog-js/dist/array.js', 'posthog');
  await t.addScriptTag({ url: '/lib/posthog-js/dist/posthog-recorder.js' });
  await t.evaluate((url, key) => {
    const all = [];
    window.posthog.init(key, { api_host: url, opt_out_useragent_filter: true });
    posthog.on('eventCaptured', e => {
      all.push(e);
      localStorage.setItem('captured', JSON.stringify(all));
    });
    posthog.capture('level_up', { n: 1, text: 'é & "x"', tags: ['a', 'b'] });
    posthog.identify('u-1', { plan: 'pro' }, { first: 'x' });
    posthog.group('guild', 'g-1', { level: 3 });
    posthog.capture('at_once', { n: 2 }, { send_instantly: true });
    posthog.capture('bought', { n: 3 }, { timestamp: new Date('2026-01-02T03:04:05.678Z') });
    posthog.capture('large', { n: 4, text: 'y'.repeat(70_000) });
  }, to.posthog, key);
  for (let n = 0; n < 3; n++) { // a chunk of a recording ends after 2 s
    await later(patience / 3);
    await t.bringToFront();
    await t.click('#press');
    await t.type('#field', 'typed');
  }
  await t.evaluate(() => posthog.capture('last', { n: 5 }));
  await t.goto(site + '/left');
  const all = JSON.parse(await t.evaluate(() => localStorage.getItem('captured')));
  for (const { uuid, event, timestamp, properties: { distinct_id, $session_id, n, tags, $groups, $current_url }, $set } of all) {
    if (event === '$snapshot') continue;
    sent({ name: event, user_id: distinct_id, session_id: $session_id, event_id: uuid, timestamp, properties: { n, tags, $groups, $set, $current_url } });
  }
  const names = all.map(e => e.event);
  for (const name of ['$pageview', '$identify', '$groupidentify', '$autocapture', 'level_up', 'at_once', 'bought', 'large', 'last', '$pageleave']) {
    if (!names.includes(name)) throw new Error('posthog-js did not capture ' + name + ': ' + names);
  }
}

// calls are the calls of Segment's and RudderStack's clients. A client may send a call more than once. The requests
// show what was sent.
const calls = api => {
  api.page('Shop', { n: 1 });
  api.track('level_up', { n: 2, text: 'é & "x"', tags: ['a', 'b'] });
  api.group('guild', { n: 3 });
  api.track('bought', { n: 4 });
};

async function called(t, what, event) {
  const all = new Map();
  t.on('request', async request => {
    if (request.method() !== 'POST') return;
    const body = JSON.parse(request.postData() || await request.fetchPostData());
    for (const call of body.batch || [body]) all.set(call.messageId, call);
  });
  await what();
  const facts = { track: 'properties', page: 'properties', identify: 'traits', group: 'traits' };
  for (const c of all.values()) {
    const { n, text, tags, plan } = c[facts[c.type]] || c.context.traits;
    sent({ name: c.type === 'track' ? c.event : c.type, user_id: 'u-1', session_id: String(c.context.sessionId || ''), timestamp: c.timestamp || c.originalTimestamp,
      properties: { n, text, tags, plan, $envelope: { anonymousId: c.anonymousId, messageId: /^[0-9a-f-]{36}$/.test(c.messageId) ? undefined : c.messageId } } });
  }
  if (all.size !== 5) throw new Error('5 calls were made, ' + all.size + ' were sent');
}

async function segment(browser, site, name, url, options) {
  const t = await tab(browser, site, '@segment/analytics-next/dist/umd/index.js', name);
  await called(t, async () => {
    await t.evaluate(async (url, key, options, calls) => {
      const analytics = AnalyticsNext.AnalyticsBrowser.load({ writeKey: key, cdnURL: url },
        { integrations: { 'Segment.io': { apiHost: new URL(url).host + '/v1', protocol: 'http', ...options } } });
      analytics.identify('u-1', { plan: 'pro' });
      await analytics;
      new Function('return ' + calls)()(analytics);
    }, url, key, options, calls.toString());
    await later(patience);
  });
}

async function rudderstack(browser, site, name, url, options) {
  const t = await tab(browser, site, '@rudderstack/analytics-js/dist/npm/legacy/bundled/umd/index.js', name);
  await called(t, async () => {
    await t.evaluate((url, key, options, calls) => {
      const analytics = new rudderanalytics.RudderAnalytics();
      analytics.load(key, url, { configUrl: url, ...options });
      analytics.identify('u-1', { plan: 'pro' });
      new Function('return ' + calls)()(analytics);
    }, url, key, options, calls.toString());
    await later(patience);
  });
}

open(body, async (browser, site) => {
  await Promise.all([
    posthog(browser, site),
    segment(browser, site, 'segment', to.segment, {}),
    segment(browser, site, 'batches', to.batches, { deliveryStrategy: { strategy: 'batching', config: { size: 3, timeout: 500 } } }),
    rudderstack(browser, site, 'rudderstack', to.rudderstack, {}),
    rudderstack(browser, site, 'beacons', to.beacons, { useBeacon: true, beaconQueueOptions: { maxItems: 3, flushQueueInterval: 500 } }),
  ]);
  await later(1000); // for beacons of the closed page
  if (wrong.length > 0) throw new Error(wrong.join('; '));
}).catch(e => {
  console.error(e);
  process.exit(1);
});
