"""snowplow-tracker, for Python. The domain user id is what the browser's `tracker.getDomainUserId()` gives."""
import time

from flow import ACCOUNT, COLLECTOR, DEVICE, ENTRY, ORDER, REFERRER, USER, an_hour_ago, pause
from snowplow_tracker import (
    Emitter, PageView, ScreenView, SelfDescribing, SelfDescribingJson, StructuredEvent, Subject, Tracker,
)

delivered = []
emitter = Emitter(COLLECTOR, protocol="http", batch_size=10, on_success=delivered.extend)
subject = Subject().set_platform("web").set_domain_user_id(DEVICE)
tracker = Tracker(namespace="shop", emitters=emitter, app_id="shop", subject=subject)
tracker.track(PageView(page_url=ENTRY, page_title="Shop", referrer=REFERRER))
pause()
tracker.track(StructuredEvent(category="shop", action="product_viewed", property_="a1", value=12.5))
order = SelfDescribingJson("iglu:test.shop/order_placed/jsonschema/1-0-0", ORDER)
tracker.track(SelfDescribing(order, true_timestamp=an_hour_ago().timestamp() * 1000))
pause()
subject.set_user_id(USER)
tracker.track(ScreenView(id_="5e551011-0000-4000-8000-000000000001", name="Account"))
tracker.track(PageView(page_url=ACCOUNT, page_title="Account"))
tracker.flush()
# What failed is sent again by a timer of the client's, not by `flush`.
for _ in range(100):
    if len(delivered) >= 5:
        break
    time.sleep(0.1)
