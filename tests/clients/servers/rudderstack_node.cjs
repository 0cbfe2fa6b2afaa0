// @rudderstack/rudder-sdk-node. `anonymousId` is what the browser's `rudderanalytics.getAnonymousId()` gives.
const RudderAnalytics = require('@rudderstack/rudder-sdk-node');
const { collector, device, user, entry, account, referrer, order, anHourAgo, pause } = require('./flow.cjs');

async function main() {
  const analytics = new RudderAnalytics('rudder-key', { dataPlaneUrl: collector, flushInterval: 300 });
  const before = { anonymousId: device };
  const both = { anonymousId: device, userId: user };
  analytics.page({ ...before, name: 'Home', properties: { url: entry, referrer } });
  await pause();
  analytics.track({ ...before, event: 'product_viewed', properties: order });
  const old = anHourAgo();
  analytics.track({ ...before, event: 'order_placed', properties: order, originalTimestamp: old, timestamp: old });
  await pause();
  analytics.identify({ ...both, traits: { plan: 'pro' } });
  analytics.alias({ previousId: device, userId: user });
  analytics.group({ ...both, groupId: 'acme', traits: { seats: 5 } });
  await new Promise((done) => analytics.page({ ...both, name: 'Account', properties: { url: account } }, done));
  await analytics.flush();
  // The first event is sent alone and at once; nothing tells when it was sent again.
  await pause(4000);
}

main();
