import { clearUserData, newTracker, setUserId, trackPageView, trackStructEvent } from '@snowplow/browser-tracker';

newTracker('shop', 'http://collector.test', { appId: 'shop', contexts: { session: true, webPage: true } });
trackPageView();
window.client = {
  event: (name) => trackStructEvent({ category: 'shop', action: name, value: 12.5 }),
  login: (user) => setUserId(user),
  group: () => {},
  alias: () => {},
  reset: () => clearUserData(),
};
