// posthog-node. `$device_id` is what the browser's `posthog.get_property('$device_id')` gives.
const { PostHog } = require('posthog-node');
const { collector, device, user, entry, account, referrer, order, anHourAgo, pause } = require('./flow.cjs');

async function main() {
  const posthog = new PostHog('phc_test', { host: collector });
  const own = { $device_id: device };
  posthog.capture({ distinctId: device, event: '$pageview', properties: { ...own, $current_url: entry, $referrer: referrer } });
  await pause();
  posthog.capture({ distinctId: device, event: 'product_viewed', properties: { ...own, ...order } });
  posthog.capture({ distinctId: device, event: 'order_placed', properties: { ...own, ...order }, timestamp: anHourAgo() });
  await pause();
  posthog.identify({ distinctId: user, properties: { ...own, $set: { plan: 'pro' }, $anon_distinct_id: device } });
  posthog.alias({ distinctId: user, alias: device });
  posthog.groupIdentify({ groupType: 'company', groupKey: 'acme', properties: { seats: 5 } });
  posthog.capture({ distinctId: user, event: '$pageview', properties: { ...own, $current_url: account } });
  await posthog.shutdown();
}

main();
