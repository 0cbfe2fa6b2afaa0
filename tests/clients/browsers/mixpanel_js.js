import mixpanel from 'mixpanel-browser';

mixpanel.init('mixpanel-token', { api_host: 'http://collector.test', track_pageview: true });
window.client = {
  event: (name) => mixpanel.track(name, { total: 12.5 }),
  login: (user) => mixpanel.identify(user),
  group: (company) => void mixpanel.get_group('company', company).set({ seats: 5 }),
  // This client takes an alias for another login, so it is not called after one.
  alias: () => {},
  reset: () => mixpanel.reset(),
};
