import { RudderAnalytics } from '@rudderstack/analytics-js/bundled';

const analytics = new RudderAnalytics();
analytics.load('rudder-key', 'http://collector.test', { configUrl: 'http://collector.test' });
analytics.page();
window.client = {
  event: (name) => analytics.track(name, { total: 12.5 }),
  login: (user) => analytics.identify(user, { plan: 'pro' }),
  group: (company) => analytics.group(company, { seats: 5 }),
  alias: (user) => analytics.alias(user, `${user}-old`),
  // Without this, the anonymous id stays, and with it the visitor.
  reset: () => analytics.reset({ entries: { anonymousId: true } }),
};
