import { byId, count, counted, make, setText } from './dom.js';
import { clock } from './time.js';

/** What is counted, and what it is called. Those that are usually zero are shown from one on. */
const TOTALS = [
  ['visitors', 'visitors', true],
  ['events', 'events', true],
  ['sessions', 'sessions', true],
  ['open', 'open', true],
  ['late', 'late', false],
  ['merged', 'merged', false],
  ['split', 'split', false],
  ['duplicates', 'duplicates', false],
  ['rejected', 'rejected', false],
  ['failed', 'failed', false],
];
/** How often screen readers are told the totals while they change. */
const ANNOUNCE_MS = 15_000;
/** Lines of the list of what just happened. */
const NEWS = 7;

/** The totals, and what just happened. */
export class Totals {
  constructor(host) {
    this.host = host;
    this.announced = -Infinity;
    this.values = new Map();
    byId('totals').replaceChildren(...TOTALS.map(([name, label, isAlways]) => {
      const value = make('dd', {}, '0');
      const box = make('div', { 'data-total': name, hidden: !isAlways }, make('dt', {}, label), value);
      this.values.set(name, { box, value, isAlways });
      return box;
    }));
  }

  show(model, { now, speed, isLive }) {
    const numbers = { ...model.totals, visitors: model.visitors.size };
    for (const [name, { box, value, isAlways }] of this.values) {
      setText(value, count(numbers[name]));
      box.hidden = !isAlways && numbers[name] === 0;
    }
    const rate = model.rate(now, speed);
    setText(byId('rate'), isLive ? `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} events/s` : '');
    const { leftOut } = model;
    setText(byId('left-out'), leftOut > 0 ? `The oldest ${counted(leftOut, 'line')} are left out.` : '');
    this.#announce(numbers);
    this.#news(model.news);
  }

  #announce(numbers) {
    const now = performance.now();
    if (now - this.announced < ANNOUNCE_MS) return;
    this.announced = now;
    const words = `${counted(numbers.events, 'event')}, ${counted(numbers.sessions, 'session')}, ${numbers.open} open`;
    setText(byId('announcement'), words);
  }

  #news(news) {
    const lines = news.slice(0, NEWS);
    if (this.newest === lines[0]) return;
    this.newest = lines[0];
    byId('news').replaceChildren(...lines.map((line) => this.#line(line)));
    byId('news-section').hidden = lines.length === 0;
  }

  #line({ visitor, kind, text, uuid, session, received }) {
    const time = make('time', {}, clock(received).slice(0, 5));
    const item = make('li', { 'data-kind': kind }, time);
    if (!visitor) item.append(text);
    else {
      const button = make('button', { type: 'button' }, visitor.id);
      button.addEventListener('click', () => this.host.find(visitor, uuid, session));
      item.append(button, ` ${text}`);
    }
    return item;
  }
}
