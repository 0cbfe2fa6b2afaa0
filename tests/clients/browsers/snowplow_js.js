import { clearUserData, newTracker, setUserId, trackPageView, trackStructEvent } from '@snowplow/browser-tracker';

newTracker('shop', 'http://collector.test', {
  appId: 'shop',
  contexts: { session: true, webPage: true },
  // The shop of this test has no HTTPS; without this, its browser keeps no cookie, and each page is another visitor's.
  cookieSecure: false,
});
// The tracker forgets the user with the page, so the shop tells it again.
if (localStorage.user) setUserId(localStorage.user);
trackPageView();
window.client = {
  event: (name) => trackStructEvent({ category: 'shop', action: name, value: 12.5 }),
  login: (user) => setUserId((localStorage.user = user)),
  group: () => {},
  alias: () => {},
  reset: () => {
    delete localStorage.user;
    setUserId(null);
    clearUserData();
  },
};
