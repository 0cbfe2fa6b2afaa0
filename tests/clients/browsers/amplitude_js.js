import * as amplitude from '@amplitude/analytics-browser';

amplitude.init('amplitude-key', { serverUrl: 'http://collector.test/2/httpapi', autocapture: true });
window.client = {
  event: (name) => void amplitude.track(name, { total: 12.5 }),
  login: (user) => amplitude.setUserId(user),
  group: (company) => void amplitude.setGroup('company', company),
  alias: () => {},
  reset: () => amplitude.reset(),
};
