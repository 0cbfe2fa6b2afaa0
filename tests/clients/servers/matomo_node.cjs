// matomo-tracker. `_id` is what the browser's `tracker.getVisitorId()` gives: 16 digits.
const { createHash } = require('node:crypto');
const MatomoTracker = require('matomo-tracker');
const { collector, device, user, entry, account, referrer, order, anHourAgo, pause } = require('./flow.cjs');

async function main() {
  const matomo = new MatomoTracker(1, `${collector}/matomo.php`);
  // It neither waits nor tries again: an error is all that one hears of an event.
  matomo.on('error', () => console.error('an event failed'));
  const _id = createHash('sha256').update(device).digest('hex').slice(0, 16);
  matomo.track({ _id, url: entry, urlref: referrer, action_name: 'Shop' });
  await pause(500);
  matomo.track({ _id, url: entry, e_c: 'shop', e_a: 'product_viewed', e_v: String(order.total) });
  const cdt = String(Math.floor(anHourAgo().getTime() / 1000));
  matomo.track({ _id, url: account, e_c: 'shop', e_a: 'order_placed', cdt });
  await pause(500);
  matomo.track({ _id, uid: user, url: account, action_name: 'Account' });
  await pause(500);
  // It leaves its connections open.
  process.exit(0);
}

main();
