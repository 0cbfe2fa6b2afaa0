// @amplitude/analytics-node. `device_id` is what the browser's `amplitude.getDeviceId()` gives.
const amplitude = require('@amplitude/analytics-node');
const { collector, device, user, entry, account, referrer, order, anHourAgo, pause } = require('./flow.cjs');

const page = '[Amplitude] Page Viewed';

async function main() {
  await amplitude.init('amplitude-key', { serverUrl: `${collector}/2/httpapi`, flushIntervalMillis: 300 }).promise;
  const before = { device_id: device };
  const both = { device_id: device, user_id: user };
  const sent = [amplitude.track(page, { '[Amplitude] Page Location': entry, referrer }, before)];
  await pause();
  sent.push(amplitude.track('product_viewed', order, before));
  sent.push(amplitude.track('order_placed', order, { ...before, time: anHourAgo().getTime() }));
  await pause();
  sent.push(amplitude.identify(new amplitude.Identify().set('plan', 'pro'), both));
  sent.push(amplitude.setGroup('company', 'acme', both));
  sent.push(amplitude.track(page, { '[Amplitude] Page Location': account }, both));
  // Each is answered once the client has done what it can. An explicit flush would try only once.
  await Promise.all(sent.map((one) => one.promise));
}

main();
