// rrweb records; its events are sent as they are, as `$replay` events of the ordinary batch.
import { record } from 'rrweb';

const visitor = 'visitor-rrweb';
const collector = 'http://collector.test/events';
let recorded = [];

function send(events) {
  return fetch(collector, { method: 'POST', body: JSON.stringify({ events }), keepalive: false }).then((answer) => {
    if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
  });
}

function flush() {
  const events = recorded;
  recorded = [];
  if (events.length === 0) return Promise.resolve();
  return send([{ event: '$replay', distinct_id: visitor, properties: { $replay_events: events } }]);
}

// Nothing is masked in the page: the service does it.
const stop = record({ emit: (event) => recorded.push(event), maskInputOptions: { password: false } });
send([{ event: '$pageview', distinct_id: visitor, timestamp: Date.now(), properties: { $current_url: location.href } }]);
const timer = setInterval(flush, 500);

window.recorder = {
  visitor: () => visitor,
  finish: async () => {
    clearInterval(timer);
    stop();
    await flush();
  },
};
