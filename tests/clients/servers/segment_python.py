"""segment-analytics-python. `anonymous_id` is what the browser's `analytics.user().anonymousId()` gives."""
from flow import ACCOUNT, COLLECTOR, DEVICE, ENTRY, ORDER, REFERRER, USER, an_hour_ago, pause
from segment.analytics import Client

analytics = Client("segment-key", host=COLLECTOR)
before = {"anonymous_id": DEVICE}
both = {"anonymous_id": DEVICE, "user_id": USER}
analytics.page(name="Home", properties={"url": ENTRY, "referrer": REFERRER}, **before)
pause()
analytics.track(event="product_viewed", properties=ORDER, **before)
analytics.track(event="order_placed", properties=ORDER, timestamp=an_hour_ago(), **before)
pause()
analytics.identify(traits={"plan": "pro"}, **both)
analytics.alias(previous_id=DEVICE, user_id=USER)
analytics.group(group_id="acme", traits={"seats": 5}, **both)
analytics.page(name="Account", properties={"url": ACCOUNT}, **both)
analytics.shutdown()
