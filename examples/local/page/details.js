import { byId, counted, make } from './dom.js';
import { campaignOf, decision } from './decision.js';
import { reasonOf } from './reasons.js';
import { SECOND, span, stamp } from './time.js';

/** Shows an event or a session, with what decided on it. */
export class Details {
  constructor(element, { hasReplay }) {
    this.element = element;
    this.hasReplay = hasReplay;
    this.shown = null;
  }

  /** Shows what is selected or pointed at. Draws nothing if that has not changed. */
  show({ visitor, session, event }) {
    const key = [visitor, session, event, visitor?.events, session?.version];
    if (this.shown?.every((part, at) => part === key[at])) return;
    this.shown = key;
    if (!visitor) return this.element.replaceChildren(HINT.content.cloneNode(true));
    const parts = [];
    if (event) parts.push(...eventParts(event), ...decisionParts(event));
    if (session) parts.push(...this.#sessionParts(session));
    parts.push(...visitorParts(visitor));
    return this.element.replaceChildren(...parts);
  }

  #sessionParts(session) {
    const reason = reasonOf(session.reason);
    const { visitor, end } = session;
    const place = `Session ${visitor.sessions.indexOf(session) + 1} of ${visitor.sessions.length}`;
    const rows = [
      ['began', `${stamp(session.start)}, by ${reason.label}`],
      ['lasted', span(session.stop - session.start)],
      ['events', `${counted(session.eventCount, 'event')}${end ? `, ${counted(end.pages ?? 0, 'page view')}` : ''}`],
      ['state', session.isOpen ? 'open: its end was not emitted yet' : `ended; version ${end.version}`],
      ['campaign', end?.campaign],
      ['entry', end?.entry],
      ['exit', end?.exit],
      ['id', session.id],
    ];
    const parts = [make('h3', {}, place), list(rows)];
    if (this.hasReplay) {
      const href = `/v1/sessions/${encodeURIComponent(session.id)}/replay`;
      parts.push(make('p', {}, make('a', { href, target: '_blank', rel: 'noopener' }, 'Recorded replay of this session')));
    }
    return parts;
  }
}

const HINT = byId('hint');

function eventParts(event) {
  const lag = event.received - event.at;
  const flags = [
    event.isLate && 'late',
    event.bot && 'bot',
    event.time_flag && `time: ${event.time_flag}`,
    event.duplicates > 0 && counted(event.duplicates, 'duplicate'),
  ].filter(Boolean);
  const rows = [
    ['time', stamp(event.at)],
    ['received', Math.abs(lag) < SECOND ? 'at once' : `${span(Math.abs(lag))} ${lag < 0 ? 'before its time' : 'later'}`],
    ['url', event.url],
    ['referrer', event.referrer],
    ['campaign', campaignOf(event)],
    ['id', event.uuid],
  ];
  const title = make('h2', {}, event.name, ...flags.map((flag) => make('span', { class: 'flag' }, flag)));
  return [title, list(rows)];
}

function decisionParts(event) {
  const { sentence, rows } = decision(event);
  const parts = [make('h3', {}, 'Decision'), make('p', {}, sentence)];
  if (rows.length === 0) return parts;
  const head = make('tr', {}, ...['rule', 'session', 'event'].map((name) => make('th', { scope: 'col' }, name)));
  const body = rows.map(({ name, session, event: own, isDeciding }) => make('tr', { class: isDeciding && 'deciding' },
    make('th', { scope: 'row' }, name, ...(isDeciding ? [' ', make('span', { class: 'flag' }, 'decided')] : [])),
    make('td', {}, session ?? '–'), make('td', {}, own ?? '–')));
  parts.push(make('table', {}, make('thead', {}, head), make('tbody', {}, ...body)));
  return parts;
}

function visitorParts(visitor) {
  const rows = [
    ['project', visitor.project],
    ['sessions', String(visitor.sessions.length)],
    ['events', String(visitor.events.length)],
    ['late', visitor.late > 0 ? String(visitor.late) : null],
    ...visitor.corrections.map(({ kind, place }) => [kind, stamp(place)]),
  ];
  return [make('h3', {}, `Visitor ${visitor.id}`), list(rows)];
}

/** Returns a list of names and values; those without a value are left out. */
function list(rows) {
  const given = rows.filter(([, value]) => value !== undefined && value !== null && value !== '');
  return make('dl', {}, ...given.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)]));
}
