/**
 * Why sessions begin: the name, what the legend calls it, a sentence, and a shape. The shape tells reasons apart without color; the
 * colors are in page.css.
 */
export const REASONS = [
  { name: 'first', label: 'first', shape: 'circle', about: 'The visitor was never seen before.' },
  { name: 'timeout', label: 'timeout', shape: 'square', about: 'The visitor was silent for longer than the timeout.' },
  { name: 'utm_change', label: 'campaign', shape: 'diamond', about: 'The event has another campaign than the session before.' },
  { name: 'referrer_change', label: 'referrer', shape: 'up', about: 'The event came from another site than the session before.' },
  { name: 'click_id_change', label: 'click id', shape: 'down', about: 'The event has another click id than the session before.' },
  { name: 'max_duration', label: 'max duration', shape: 'bar', about: 'The session before had reached its maximum duration.' },
  { name: 'max_events', label: 'max events', shape: 'plus', about: 'The session before had reached its maximum number of events.' },
  { name: 'midnight', label: 'midnight', shape: 'ring', about: 'A new local day began.' },
  { name: 'explicit', label: 'ended by request', shape: 'cross', about: 'A request ended the session before.' },
];

/** What a session is shown as until an event or its end tells why it began: one that was split off is known by its events only. */
const UNKNOWN = { name: 'unknown', label: 'not known yet', shape: 'dot', about: 'Its end will tell why it began.' };

const BY_NAME = new Map(REASONS.map((reason) => [reason.name, reason]));

/** Returns a reason by its name. */
export const reasonOf = (name) => BY_NAME.get(name) ?? UNKNOWN;

/** Draws a reason's shape around a point, in the fill style that is set. */
export function drawShape(context, shape, x, y, size) {
  const r = size / 2;
  const paths = {
    circle: () => context.arc(x, y, r, 0, 2 * Math.PI),
    ring: () => {
      context.arc(x, y, r, 0, 2 * Math.PI);
      context.arc(x, y, r / 2, 0, 2 * Math.PI, true);
    },
    dot: () => context.arc(x, y, r / 2, 0, 2 * Math.PI),
    square: () => context.rect(x - r * 0.85, y - r * 0.85, r * 1.7, r * 1.7),
    bar: () => context.rect(x - r * 0.4, y - r, r * 0.8, r * 2),
    diamond: () => polygon(context, [[x, y - r * 1.15], [x + r * 1.15, y], [x, y + r * 1.15], [x - r * 1.15, y]]),
    up: () => polygon(context, [[x, y - r], [x + r, y + r * 0.85], [x - r, y + r * 0.85]]),
    down: () => polygon(context, [[x, y + r], [x + r, y - r * 0.85], [x - r, y - r * 0.85]]),
    plus: () => {
      context.rect(x - r, y - r * 0.35, r * 2, r * 0.7);
      context.rect(x - r * 0.35, y - r, r * 0.7, r * 2);
    },
    cross: () => {
      const [a, b] = [r * 0.35, r];
      polygon(context, [[x - b, y - b + a], [x - b + a, y - b], [x, y - a], [x + b - a, y - b], [x + b, y - b + a], [x + a, y],
        [x + b, y + b - a], [x + b - a, y + b], [x, y + a], [x - b + a, y + b], [x - b, y + b - a], [x - a, y]]);
    },
  };
  context.beginPath();
  paths[shape]();
  context.fill();
}

function polygon(context, [first, ...rest]) {
  context.moveTo(...first);
  rest.forEach((point) => context.lineTo(...point));
  context.closePath();
}
