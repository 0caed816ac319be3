// The console's script: it loads the parts of pages, asks before actions, and shows live events. Pages that are made on
// the server are trusted; texts of events are only ever set as text.
'use strict';

function logIn() {
  location.assign('/console/login?next=' + encodeURIComponent(location.pathname + location.search));
}

async function load(part) {
  if (part.dataset.busy) return;
  part.dataset.busy = 'yes';
  part.setAttribute('aria-busy', 'true');
  let html;
  try {
    const answer = await fetch(part.dataset.load, { headers: { Accept: 'text/html' }, credentials: 'same-origin' });
    if (answer.status === 401) return logIn();
    html = await answer.text();
  } catch (_) {
    html = '<div class="note bad" role="alert" data-every="3"><strong>This console’s receiver or loader does not answer.</strong> Start it again. This page tries again every 3 seconds.</div>';
  }
  delete part.dataset.busy;
  part.setAttribute('aria-busy', 'false');
  replace(part, html);
  const every = part.querySelector('[data-every]') || part;
  if (every.dataset.every) setTimeout(() => whenSeen(() => load(part)), 1000 * Number(every.dataset.every));
}

// replace shows a part anew. What somebody writes stays, and so do the focus and what is open.
const shown = new WeakMap();
function replace(part, html) {
  const active = part.contains(document.activeElement) ? document.activeElement : null;
  if (shown.get(part) === html || active && active.matches('input, select, textarea')) return;
  shown.set(part, html);
  const places = () => [...part.querySelectorAll('a, button, summary, [tabindex]')];
  const name = element => element.tagName + (element.href || element.textContent);
  const at = active && places().filter(other => name(other) === name(active)).indexOf(active);
  const open = [...part.querySelectorAll('details')].map(details => details.open);
  part.innerHTML = html;
  part.querySelectorAll('details').forEach((details, i) => { details.open = open[i] || false; });
  reach(part);
  if (active) (places().filter(other => name(other) === name(active))[at] || document.getElementById('main')).focus({ preventScroll: true });
}

// reach labels cells, and lets the keyboard scroll what is larger than its box.
function reach(root) {
  for (const table of root.querySelectorAll('table')) { // a phone shows a cell's heading beside it
    const heads = [...table.querySelectorAll('thead th')].map(head => head.querySelector('.hidden') ? '' : head.textContent);
    for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, i) => { cell.dataset.label = heads[i] || ''; });
  }
  for (const box of root.querySelectorAll('.scroll, pre')) {
    const larger = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (!larger) {
      box.removeAttribute('tabindex');
      continue;
    }
    const caption = box.querySelector('caption');
    box.tabIndex = 0;
    box.setAttribute('role', 'region');
    if (!box.hasAttribute('aria-label')) box.setAttribute('aria-label', caption ? caption.textContent : 'Text');
  }
}
window.addEventListener('resize', () => reach(document));
reach(document);

// whenSeen waits while the page is in the background.
function whenSeen(what) {
  if (!document.hidden) return what();
  document.addEventListener('visibilitychange', () => whenSeen(what), { once: true });
}

for (const part of document.querySelectorAll('[data-load]')) load(part);

// On a phone, the pages' names scroll.
const current = document.querySelector('nav [aria-current]');
if (current) current.parentElement.scrollLeft = current.offsetLeft - current.parentElement.offsetLeft - 40;

// A form is sent once. Before a change, a dialog asks.
document.addEventListener('submit', event => {
  const form = event.target;
  if (form.method !== 'post') return;
  const asks = new URL(form.action).pathname.startsWith('/console/run/') && !form.elements.sure &&
    !(event.submitter && event.submitter.name === 'dry-run');
  const body = new URLSearchParams(new FormData(form, event.submitter)); // before the buttons are off
  const buttons = [...form.querySelectorAll('button')];
  setTimeout(() => { for (const b of buttons) b.disabled = true; });
  if (!asks) return;
  event.preventDefault();
  ask(form, body, event.submitter).finally(() => { for (const b of buttons) b.disabled = false; });
});
window.addEventListener('pageshow', event => {
  if (event.persisted) for (const b of document.querySelectorAll('button')) b.disabled = false;
});

// ask shows the server's question, or why it refuses, in a dialog. It returns when that is closed.
async function ask(form, body, opener) {
  const dialog = document.createElement('dialog');
  dialog.setAttribute('aria-labelledby', 'question');
  try {
    const answer = await fetch(form.action, { method: 'POST', body, credentials: 'same-origin' });
    if (answer.status === 401) return logIn();
    if (answer.redirected) return location.assign(answer.url); // there was nothing to ask
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    dialog.append(...page.querySelector('main').childNodes);
  } catch (_) {
    const text = document.createElement('p');
    text.className = 'note bad';
    text.textContent = 'This console’s receiver or loader does not answer. Start it again, and then try again.';
    dialog.append(text);
  }
  const title = dialog.querySelector('h1');
  if (title) title.id = 'question';
  if (!dialog.querySelector('#back')) {
    const back = document.createElement('button');
    back.id = 'back';
    back.textContent = 'Back';
    dialog.append(back);
  }
  dialog.addEventListener('click', event => {
    if (event.target.closest('#back')) {
      event.preventDefault();
      dialog.close();
    }
  });
  document.getElementById('main').append(dialog);
  dialog.showModal();
  reach(dialog);
  const first = dialog.querySelector('[autofocus], #back');
  if (first) first.focus();
  await new Promise(closed => dialog.addEventListener('close', closed, { once: true }));
  dialog.remove();
  setTimeout(() => { if (opener && opener.isConnected) opener.focus(); }); // it is on again by then
}

const list = document.getElementById('live');
if (list) live(list);

function live(list) {
  const count = document.getElementById('count'), pause = document.getElementById('pause');
  const state = document.getElementById('state'), why = document.getElementById('why');
  const most = 300;
  const entries = []; // that the list shows, newest first
  const objects = new Map(); // by key: where its events are, and what became of it
  let paused = false, lost = false, waiting = [], source, text = '';
  const say = (next, kind, reason) => { // only what is new, because it is read out
    if (next === text) return;
    text = next;
    state.textContent = next;
    state.className = 'badge ' + kind;
    why.replaceChildren(...(reason || []));
  };
  const cell = (item, tag, name, text) => {
    const element = document.createElement(tag);
    element.className = name;
    element.textContent = text;
    item.append(element);
    return element;
  };
  const linked = (to, text, href, title) => {
    const link = document.createElement('a');
    link.href = href;
    link.textContent = text;
    if (title) link.title = title;
    to.replaceChildren(link);
  };

  // An event is accepted, then in an object, then a row.
  const states = { loaded: ['row', 'row'], failed: ['failing', 'warn'], dead: ['dead letter', 'bad'], dropped: ['dropped', 'bad'] };
  const within = (e, object) => e.receiver === object.receiver && e.seq !== undefined && BigInt(e.seq) >= object.first && BigInt(e.seq) <= object.last;
  const stage = entry => {
    const e = entry.event;
    if (!e.accepted) return;
    if (!e.object) for (const [key, object] of objects) if (within(e, object)) e.object = key;
    if (!e.object) return;
    const found = objects.get(e.object), [word, kind] = states[found && found.state] || ['object', 'object'];
    if (entry.badge.textContent === word) return;
    entry.badge.className = 'badge ' + kind;
    if (word === 'row') linked(entry.badge, word, '/console/objects?what=' + encodeURIComponent(e.event_id), 'The event in ' + e.object);
    else linked(entry.badge, word, '/console/object?key=' + encodeURIComponent(e.object), e.object);
  };
  const details = e => {
    const lines = [e.text + (e.cut ? '…' : ''), '', 'user ' + (e.user_id || '–') + '   session ' + (e.session_id || '–'),
      'event ' + (e.event_id || '–') + '   request ' + e.request_id];
    if (!e.accepted) lines.unshift(e.message, '');
    if (e.object) lines.push('object ' + e.object);
    return lines.join('\n');
  };
  const show = e => {
    const item = document.createElement('li');
    const time = cell(item, 'time', 'mono', new Date(e.time).toISOString().slice(11, 23));
    time.dateTime = e.time;
    const badge = cell(item, 'span', 'badge ' + (e.accepted ? 'accepted' : 'rejected'), e.accepted ? 'accepted' : 'rejected');
    cell(item, 'span', '', e.project || '–');
    const name = cell(item, 'span', '', '');
    if (e.accepted) linked(name, e.name, '/console/objects?what=' + encodeURIComponent(e.event_id), 'Where is this event?');
    else linked(name, e.code, '/console/errors?code=' + encodeURIComponent(e.code) + '&project=' + encodeURIComponent(e.project || ''), 'Failure records with this code');
    if (e.redriven) cell(name, 'span', 'badge', 'redriven');
    const more = cell(item, 'button', 'text mono', e.accepted ? e.text : e.message + '  ' + e.text);
    more.type = 'button';
    more.setAttribute('aria-expanded', 'false');
    more.addEventListener('click', () => {
      const open = item.classList.toggle('open');
      more.setAttribute('aria-expanded', String(open));
      if (open) cell(item, 'pre', '', details(e));
      else item.querySelector('pre').remove();
    });
    list.prepend(item);
    const entry = { event: e, badge, item };
    entries.unshift(entry);
    stage(entry);
  };
  const gap = () => { // events between two connections are missing
    const item = document.createElement('li');
    item.className = 'gap';
    item.textContent = 'Connected again at ' + new Date().toISOString().slice(11, 19) + '. Events before that are missing.';
    list.prepend(item);
  };
  const draw = () => {
    const now = waiting.splice(0);
    if (!now.length) return;
    document.getElementById('none').hidden = true;
    for (const e of now.slice(-most)) show(e);
    // An event that somebody reads stays.
    while (entries.length > most && !entries[entries.length - 1].item.contains(document.activeElement)) entries.pop().item.remove();
  };
  const stages = key => { for (const entry of entries) if (!key || !entry.event.object || entry.event.object === key) stage(entry); };
  const open = () => {
    source = new EventSource('/console/events?' + list.dataset.query);
    source.addEventListener('event', m => {
      waiting.push(JSON.parse(m.data));
      if (waiting.length > most) waiting.shift();
    });
    source.addEventListener('stored', m => {
      const o = JSON.parse(m.data);
      objects.set(o.object, { receiver: o.receiver, first: BigInt(o.first_seq), last: BigInt(o.last_seq) });
      if (objects.size > most) objects.delete(objects.keys().next().value);
      stages(o.object);
    });
    source.addEventListener('load', m => {
      const l = JSON.parse(m.data), object = objects.get(l.object);
      if (object) object.state = l.state;
      stages(l.object);
    });
    source.addEventListener('count', m => {
      if (lost) gap();
      lost = false;
      say(paused ? 'paused' : 'live', paused ? 'warn' : 'ok');
      count.textContent = JSON.parse(m.data);
    });
    source.addEventListener('failed', m => {
      source.close();
      lost = true;
      say('failed', 'bad', [JSON.parse(m.data) + '. It tries again every 3 seconds.']);
      setTimeout(open, 3000);
    });
    source.onerror = () => {
      lost = true;
      if (source.readyState === EventSource.CONNECTING) {
        say('disconnected', 'bad', ['This console’s process does not answer. The page tries again.']);
        return;
      }
      // The process is another one now: its sessions are new.
      const link = document.createElement('a');
      link.href = '/console/login?next=' + encodeURIComponent(location.pathname + location.search);
      link.textContent = 'Log in again';
      say('ended', 'bad', ['The process has restarted, or your session has ended. ', link, ' to go on.']);
    };
  };
  setInterval(() => { if (!paused) draw(); }, 250);
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.textContent = paused ? 'Resume' : 'Pause';
    pause.setAttribute('aria-pressed', String(paused));
    if (text === 'live' || text === 'paused') say(paused ? 'paused' : 'live', paused ? 'warn' : 'ok');
  });
  window.addEventListener('pagehide', () => source.close());
  open();
}
