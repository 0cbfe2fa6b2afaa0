"""posthog, for Python. `$device_id` is what the browser's `posthog.get_property('$device_id')` gives."""
from flow import ACCOUNT, COLLECTOR, DEVICE, ENTRY, ORDER, REFERRER, USER, an_hour_ago, pause
from posthog import Posthog

posthog = Posthog("phc_test", host=COLLECTOR)
device = {"$device_id": DEVICE}
posthog.capture("$pageview", distinct_id=DEVICE, properties={**device, "$current_url": ENTRY, "$referrer": REFERRER})
pause()
posthog.capture("product_viewed", distinct_id=DEVICE, properties={**device, **ORDER})
posthog.capture("order_placed", distinct_id=DEVICE, properties={**device, **ORDER}, timestamp=an_hour_ago())
pause()
posthog.alias(DEVICE, USER)
posthog.group_identify("company", "acme", {"seats": 5})
posthog.capture("$pageview", distinct_id=USER, properties={**device, "$current_url": ACCOUNT, "$set": {"plan": "pro"}})
posthog.shutdown()
