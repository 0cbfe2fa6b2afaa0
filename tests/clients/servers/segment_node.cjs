// @segment/analytics-node. `anonymousId` is what the browser's `analytics.user().anonymousId()` gives.
const { Analytics } = require('@segment/analytics-node');
const { collector, device, user, entry, account, referrer, order, anHourAgo, pause } = require('./flow.cjs');

async function main() {
  const analytics = new Analytics({ writeKey: 'segment-key', host: collector });
  const before = { anonymousId: device };
  const both = { anonymousId: device, userId: user };
  analytics.page({ ...before, name: 'Home', properties: { url: entry, referrer } });
  await pause();
  analytics.track({ ...before, event: 'product_viewed', properties: order });
  analytics.track({ ...before, event: 'order_placed', properties: order, timestamp: anHourAgo() });
  await pause();
  analytics.identify({ ...both, traits: { plan: 'pro' } });
  analytics.alias({ previousId: device, userId: user });
  analytics.group({ ...both, groupId: 'acme', traits: { seats: 5 } });
  analytics.page({ ...both, name: 'Account', properties: { url: account } });
  await analytics.closeAndFlush();
}

main();
