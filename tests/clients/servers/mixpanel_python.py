"""mixpanel, for Python. `$device_id` and `$user_id` are what the browser's client puts on its events.

There is no call of `alias`: this client sends it to Mixpanel, whatever address it was given.
"""
import sys

from flow import ACCOUNT, COLLECTOR, DEVICE, ENTRY, ORDER, REFERRER, USER, an_hour_ago, pause
from mixpanel import Consumer, Mixpanel, MixpanelException

consumer = Consumer(
    events_url=f"{COLLECTOR}/track",
    people_url=f"{COLLECTOR}/engage",
    groups_url=f"{COLLECTOR}/groups",
    import_url=f"{COLLECTOR}/import",
)
mixpanel = Mixpanel("mixpanel-token", consumer=consumer)


def send(call, *arguments, **named):
    """Calls the client, as a program does that goes on without its analytics: this client raises what others retry."""
    try:
        call(*arguments, **named)
    except MixpanelException:
        print(f"{call.__name__} raised", file=sys.stderr)


device = {"$device_id": DEVICE}
both = {"$device_id": DEVICE, "$user_id": USER}
anonymous = f"$device:{DEVICE}"
send(mixpanel.track, anonymous, "$mp_web_page_view", {**device, "$current_url": ENTRY, "$referrer": REFERRER})
pause()
send(mixpanel.track, anonymous, "product_viewed", {**device, **ORDER})
old = int(an_hour_ago().timestamp())
send(mixpanel.import_data, None, anonymous, "order_placed", old, {**device, **ORDER}, api_secret="mixpanel-secret")
pause()
send(mixpanel.track, USER, "$identify", {**both, "$identified_id": USER, "$anon_id": DEVICE})
send(mixpanel.people_set, USER, {"plan": "pro"})
send(mixpanel.group_set, "company", "acme", {"seats": 5})
send(mixpanel.track, USER, "$mp_web_page_view", {**both, "$current_url": ACCOUNT})
