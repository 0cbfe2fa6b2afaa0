import posthog from 'posthog-js';

posthog.init('phc_test', { api_host: 'http://collector.test', defaults: '2025-05-24' });
window.client = {
  event: (name) => posthog.capture(name, { total: 12.5 }),
  login: (user) => posthog.identify(user, { plan: 'pro' }),
  group: (company) => posthog.group('company', company, { seats: 5 }),
  alias: (user) => posthog.alias(`${user}-old`),
  reset: () => posthog.reset(),
};
