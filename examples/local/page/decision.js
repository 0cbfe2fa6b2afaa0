import { reasonOf } from './reasons.js';
import { span, stamp } from './time.js';

/** Parameters of a URL that name a campaign. */
const CAMPAIGN = ['utm_source', 'utm_medium', 'utm_campaign'];

/**
 * Returns what decided on an event's session: a sentence, and the rules with the values that they compared. The service told that when
 * the event came, if a page was open or a file is shown. Else it is told from what the page knows: the events before it, and what the
 * service wrote on the event.
 */
export function decision(event) {
  if (event.explanation) return explained(event, event.explanation);
  if (!event.current) return { sentence: WITHOUT_SESSION[event.no_session ?? 'no_session'] ?? WITHOUT_SESSION.no_session, rows: [] };
  const session = event.inSession;
  const before = previous(event);
  const begins = session.events[0] === event;
  const rows = before ? compared(before, event) : [];
  if (event.isLate) return { sentence: LATE, rows };
  if (event.current !== event.session) return { sentence: moved(event), rows };
  if (begins) return { sentence: `It began the session. ${reasonOf(session.reason).about}`, rows };
  return { sentence: CONTINUED, rows };
}

const CONTINUED = 'It continued the session: no rule separates it from the events before.';
const LATE = 'It is late: everything up to its time was already finalized. It joined the session that was nearest, or made one of its '
  + 'own, and that session’s end is emitted again.';

const WITHOUT_SESSION = {
  bot: 'A bot sent it, and bots have no sessions here.',
  nobody: 'Its visitor id stands for nobody, so that it has no session.',
  lifecycle: 'It has the name of an event that the service emits itself, and passes through.',
  no_session: 'It belongs to no session: it neither begins nor extends one, and none was going on.',
};

function moved(event) {
  const isMerge = event.inSession.visitor.corrections.some(({ kind, into }) => kind === 'merged' && into === event.current);
  return isMerge
    ? 'It was handed out with another session. A later event showed that the two are one.'
    : 'It was handed out with another session. A later event showed that another visit began between them.';
}

/** Returns the event of the visitor before this one that belongs to a session. */
function previous(event) {
  const { events } = event.inSession.visitor;
  for (let at = events.indexOf(event) - 1; at >= 0; at -= 1) {
    if (events[at].current) return events[at];
  }
  return null;
}

/** Returns rows of a name, the session's value, the event's own, and whether the rule decided. */
function compared(before, event) {
  const { reason } = event.inSession;
  const decides = (name) => event.inSession.events[0] === event && reason === name;
  const rows = [row('silence before it', null, span(event.at - before.at), decides('timeout'))];
  const campaigns = [sessionValue(before, campaignOf), campaignOf(event)];
  if (campaigns.some(Boolean)) rows.push(row('campaign', ...campaigns, decides('utm_change')));
  const referrers = [sessionValue(before, (one) => hostOf(one.referrer)), hostOf(event.referrer)];
  if (referrers.some(Boolean)) rows.push(row('referrer', ...referrers, decides('referrer_change')));
  return rows;
}

const row = (name, session, event, isDeciding = false) => ({ name, session, event, isDeciding });

/** Returns the value that the session of an event had up to it: that of the first event that brought one. */
function sessionValue(event, valueOf) {
  const { events } = event.inSession;
  const upTo = events.slice(0, events.indexOf(event) + 1);
  return upTo.map(valueOf).find(Boolean) ?? null;
}

/** Returns an event's campaign as it is shown: that of its properties, or else that of its URL. */
export function campaignOf(event) {
  if (event.campaign) return event.campaign;
  const query = parsed(event.url)?.searchParams;
  const values = CAMPAIGN.map((name) => query?.get(name)).filter(Boolean);
  return values.length > 0 ? values.join(' / ') : null;
}

const hostOf = (url) => parsed(url)?.host.replace(/^www\./, '') || null;

function parsed(url) {
  return URL.canParse(url ?? '') ? new URL(url) : null;
}

/** Returns what the service itself told when the event came. */
function explained(event, explanation) {
  const { rule, session_before: before, session_after: after, merges = 0, splits = 0 } = explanation;
  const sentences = [sentenceOf(rule)];
  if (explanation.watermark) sentences.push(`Everything before ${stamp(Date.parse(explanation.watermark))} was final.`);
  if (merges > 0) sentences.push('It closed the gap between sessions, so that they became one.');
  if (splits > 0) sentences.push('It showed that another visit began in the middle of a session, which was split.');
  if (event.current !== event.session) sentences.push(moved(event));
  return { sentence: sentences.join(' '), rows: [...checks(before, rule), ...checks(after, rule)] };
}

function sentenceOf(rule) {
  const sentences = {
    continues: CONTINUED,
    late_joins: 'It came too late to be placed exactly, and joined the session that is near enough.',
    late_begins: 'It came too late to be placed exactly. No session is near enough, so that it made one of its own.',
    duplicate: 'It is a duplicate, and changed nothing.',
    annotated: 'It counts in no session, and was given the session of its time.',
    ...WITHOUT_SESSION,
  };
  return sentences[rule] ?? `It began a session. ${reasonOf(rule).about}`;
}

/** Returns a row for each rule that a session was compared by. */
function checks(comparison, decided) {
  return (comparison?.rules ?? []).map((check) => {
    const { label } = reasonOf(check.rule);
    return row(label, ...valuesOf(check), check.holds && check.rule === decided);
  });
}

/** Returns the two values that a rule compared, as they are shown. A limit stands in the place of the session's value. */
function valuesOf({ ms, max_ms: maxMs, events, max_events: maxEvents, session, event }) {
  if (ms !== undefined) return [`≤ ${span(maxMs)}`, span(ms)];
  if (events !== undefined) return [`≤ ${maxEvents}`, String(events)];
  return [shown(session), shown(event)];
}

function shown(value) {
  if (value === null || value === undefined) return null;
  return typeof value === 'object' ? Object.values(value).filter(Boolean).join(' / ') : String(value);
}
