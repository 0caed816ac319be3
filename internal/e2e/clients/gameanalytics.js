// GameAnalytics' client for browsers. Node stands in for the browser's functions that it calls. Its requests are
// real.
const { url, gameKey, gameSecret, sent } = require('./run');

const store = new Map();
globalThis.localStorage = {
  getItem: k => store.get(k) ?? null, setItem: (k, v) => store.set(k, String(v)), removeItem: k => store.delete(k),
};
const listen = () => {};
globalThis.window = { addEventListener: listen, localStorage };
globalThis.document = { addEventListener: listen, hidden: false };
Object.defineProperty(globalThis, 'navigator', { configurable: true, value: { onLine: true, userAgent: 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', appVersion: '5.0 (X11)', platform: 'Linux x86_64', vendor: '' } });
globalThis.XMLHttpRequest = class {
  readyState = 0; status = 0; statusText = ''; responseText = ''; headers = {};
  open(method, url) { this.method = method; this.url = url; }
  setRequestHeader(name, value) { this.headers[name] = value; }
  send(body) {
    fetch(this.url, { method: this.method, headers: this.headers, body })
      .then(async res => { this.responseText = await res.text(); this.status = res.status; this.statusText = res.statusText; })
      .catch(e => { console.error(this.url, e.message); this.status = 0; this.responseText = ''; })
      .finally(() => { this.readyState = 4; this.onreadystatechange(); });
  }
};
const { GameAnalytics, EGAProgressionStatus, EGAResourceFlowType, http, state: { GAState }, store: { GAStore, EGAStore } } = require('gameanalytics');

const api = http.GAHTTPApi.instance;
api.baseUrl = url + '/v2';
api.remoteConfigsBaseUrl = url + '/remote_configs/v1';
GameAnalytics.setEventProcessInterval(1);
GameAnalytics.configureUserId('u-1');
GameAnalytics.configureAvailableResourceCurrencies(['gems']);
GameAnalytics.configureAvailableResourceItemTypes(['boost']);
GameAnalytics.initialize(gameKey, gameSecret);
const started = setInterval(() => {
  if (!GameAnalytics.isSdkReady(true)) return;
  clearInterval(started);
  const row = { user_id: 'u-1', session_id: GAState.getSessionId() };
  sent({ ...row, name: 'user', properties: { session_num: 1 } });
  for (let n = 1; n <= 20; n++) { // the client treats 0 as a custom field that is not set
    GameAnalytics.addDesignEvent('level:up', n, { n });
    sent({ ...row, name: 'design', properties: { event_id: 'level:up', value: n, custom_fields: { n } } });
  }
  GameAnalytics.addProgressionEvent(EGAProgressionStatus.Complete, 'world', 'level', 'phase', 100);
  sent({ ...row, name: 'progression', properties: { event_id: 'Complete:world:level:phase', score: 100 } });
  GameAnalytics.addBusinessEvent('USD', 99, 'pack', 'gems', 'shop');
  sent({ ...row, name: 'business', properties: { event_id: 'pack:gems', currency: 'USD', amount: 99, cart_type: 'shop' } });
  GameAnalytics.addResourceEvent(EGAResourceFlowType.Sink, 'gems', 5, 'boost', 'speed');
  sent({ ...row, name: 'resource', properties: { event_id: 'Sink:gems:boost:speed', amount: -5 } });
  const last = Date.now() + 4000; // the client adds some events on its own timer
  setInterval(() => {
    if (Date.now() > last && GAStore.select(EGAStore.Events).length === 0) process.exit(0);
  }, 100);
}, 100);
