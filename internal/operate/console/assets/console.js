// The console's script: it loads the parts of pages, and shows live events. Pages that are made on the server are
// trusted; texts of events are only ever set as text.
'use strict';

async function load(part) {
  if (part.dataset.busy) return;
  part.dataset.busy = 'yes';
  part.setAttribute('aria-busy', 'true');
  let html;
  try {
    const answer = await fetch(part.dataset.load, { headers: { Accept: 'text/html' }, credentials: 'same-origin' });
    if (answer.status === 401) {
      location.assign('/console/login');
      return;
    }
    html = await answer.text();
  } catch (_) {
    html = '<div class="note bad">This page cannot reach its receiver or loader. It tries again.</div>';
  }
  delete part.dataset.busy;
  part.setAttribute('aria-busy', 'false');
  // What somebody writes or has opened stays.
  if (!part.contains(document.activeElement) || document.activeElement.tagName === 'A') part.innerHTML = html;
  const every = part.querySelector('[data-every]') || part.closest('[data-every]') || part;
  if (every.dataset.every) setTimeout(() => whenSeen(() => load(part)), 1000 * Number(every.dataset.every));
}

// whenSeen waits while the page is in the background.
function whenSeen(what) {
  if (!document.hidden) return what();
  document.addEventListener('visibilitychange', () => whenSeen(what), { once: true });
}

for (const part of document.querySelectorAll('[data-load]')) load(part);

// A form is sent once.
document.addEventListener('submit', event => {
  if (event.target.method === 'post') for (const b of event.target.querySelectorAll('button')) setTimeout(() => { b.disabled = true; });
});
window.addEventListener('pageshow', event => {
  if (event.persisted) for (const b of document.querySelectorAll('button')) b.disabled = false;
});

const list = document.getElementById('live');
if (list) live(list);

function live(list) {
  const count = document.getElementById('count'), pause = document.getElementById('pause'), state = document.getElementById('state');
  const most = 300;
  let paused = false, waiting = [], source;
  const cell = (item, name, text) => {
    const span = document.createElement('span');
    span.className = name;
    span.textContent = text;
    item.append(span);
    return span;
  };
  const show = e => {
    const item = document.createElement('li');
    cell(item, 'mono', new Date(e.time).toISOString().slice(11, 23));
    cell(item, 'badge ' + (e.accepted ? 'accepted' : 'rejected'), e.accepted ? 'accepted' : 'rejected');
    cell(item, '', e.project || '–');
    const name = cell(item, '', '');
    if (e.accepted) {
      const link = document.createElement('a');
      link.href = '/console/objects?what=' + encodeURIComponent(e.event_id);
      link.textContent = e.name;
      link.title = 'Where is this event?';
      name.append(link);
    } else name.textContent = e.code;
    const text = cell(item, 'text mono', e.accepted ? e.text : e.message + '  ' + e.text);
    text.tabIndex = 0;
    const details = [e.text + (e.cut ? '…' : ''), '', 'user ' + (e.user_id || '–') + '   session ' + (e.session_id || '–'),
      'event ' + (e.event_id || '–') + '   request ' + e.request_id];
    if (!e.accepted) details.unshift(e.message, '');
    if (e.object) details.push('object ' + e.object);
    const brief = text.textContent;
    const toggle = () => { text.textContent = item.classList.toggle('open') ? details.join('\n') : brief; };
    text.addEventListener('click', toggle);
    text.addEventListener('keydown', k => { if (k.key === 'Enter') toggle(); });
    list.prepend(item);
    while (list.children.length > most) list.lastChild.remove();
  };
  const draw = () => {
    const now = waiting.splice(0);
    if (now.length) document.getElementById('none').hidden = true;
    for (const e of now.slice(-most)) show(e);
  };
  const open = () => {
    source = new EventSource('/console/events?' + list.dataset.query);
    state.textContent = 'connecting…';
    source.addEventListener('event', m => {
      waiting.push(JSON.parse(m.data));
      if (waiting.length > most) waiting.shift();
    });
    source.addEventListener('count', m => {
      state.textContent = paused ? 'paused' : 'live';
      count.textContent = JSON.parse(m.data);
    });
    source.addEventListener('failed', m => { state.textContent = JSON.parse(m.data); source.close(); });
    source.onerror = () => { state.textContent = 'disconnected; it tries again'; };
  };
  setInterval(() => { if (!paused) draw(); }, 250);
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.textContent = paused ? 'Resume' : 'Pause';
    pause.setAttribute('aria-pressed', String(paused));
  });
  window.addEventListener('pagehide', () => source.close());
  open();
}
