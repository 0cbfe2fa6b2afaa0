import { AnalyticsBrowser } from '@segment/analytics-next';

const analytics = AnalyticsBrowser.load(
  { writeKey: 'segment-key', cdnURL: 'http://collector.test' },
  { integrations: { 'Segment.io': { apiHost: 'collector.test/v1', protocol: 'http' } } },
);
analytics.page();
window.client = {
  // What these return resolves once the event was delivered: a page does not wait for that.
  event: (name) => void analytics.track(name, { total: 12.5 }),
  login: (user) => void analytics.identify(user, { plan: 'pro' }),
  group: (company) => void analytics.group(company, { seats: 5 }),
  alias: (user) => void analytics.alias(user, `${user}-old`),
  reset: () => analytics.reset(),
};
