// posthog-js with its session recording. The recorder is part of the page's script, so that nothing is loaded from elsewhere.
import posthog from 'posthog-js';
import 'posthog-js/dist/posthog-recorder';

posthog.init('phc_test', {
  api_host: 'http://collector.test',
  defaults: '2025-05-24',
  session_recording: { maskAllInputs: false },
  // The lines of docs/replay.md: a recording names the device, as every other event does.
  before_send: (event) => {
    if (event?.event === '$snapshot') {
      event.properties.$device_id = posthog.get_property('$device_id');
      event.properties.$is_identified = posthog.get_property('$user_state') === 'identified';
    }
    return event;
  },
});

window.recorder = {
  visitor: () => posthog.get_property('$device_id'),
  login: () => posthog.identify('user-1'),
  // Its buffer is sent every two seconds.
  finish: () => new Promise((done) => { setTimeout(done, 6000); }),
};
