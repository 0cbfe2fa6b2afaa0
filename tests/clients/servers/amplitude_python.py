"""amplitude-analytics, for Python. `device_id` is what the browser's `amplitude.getDeviceId()` gives."""
import time

from amplitude import Amplitude, BaseEvent, EventOptions, Identify
from flow import ACCOUNT, COLLECTOR, DEVICE, ENTRY, ORDER, REFERRER, USER, an_hour_ago, pause

PAGE = "[Amplitude] Page Viewed"
before = {"device_id": DEVICE}
both = {"device_id": DEVICE, "user_id": USER}
answered = []  # the client tells this, event by event, once it has done what it can

amplitude = Amplitude("amplitude-key")
amplitude.configuration.server_url = f"{COLLECTOR}/2/httpapi"
amplitude.configuration.flush_interval_millis = 300
amplitude.configuration.callback = lambda event, code, message=None: answered.append(code)
amplitude.track(BaseEvent(PAGE, event_properties={"[Amplitude] Page Location": ENTRY, "referrer": REFERRER}, **before))
pause()
amplitude.track(BaseEvent("product_viewed", event_properties=ORDER, **before))
old = int(an_hour_ago().timestamp() * 1000)
amplitude.track(BaseEvent("order_placed", event_properties=ORDER, time=old, **before))
pause()
amplitude.identify(Identify().set("plan", "pro"), EventOptions(**both))
amplitude.set_group("company", "acme", EventOptions(**both))
amplitude.track(BaseEvent(PAGE, event_properties={"[Amplitude] Page Location": ACCOUNT}, **both))
for _ in range(100):
    if len(answered) >= 6:
        break
    time.sleep(0.1)
amplitude.shutdown()
