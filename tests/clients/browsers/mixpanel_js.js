import mixpanel from 'mixpanel-browser';

mixpanel.init('mixpanel-token', { api_host: 'http://collector.test', track_pageview: true });
window.client = {
  event: (name) => mixpanel.track(name, { total: 12.5 }),
  login: (user) => mixpanel.identify(user),
  group: (company) => void mixpanel.get_group('company', company).set({ seats: 5 }),
  alias: (user) => void mixpanel.alias(`${user}-old`, user),
  reset: () => mixpanel.reset(),
};
