"""Generates the events. The same arguments give the same bytes on every machine.

The events are visits of a shop's visitors, a few frequent and many rare, in event-time order. A session only ends by a
timeout of half an hour, so that one rule in SQL gives the same sessions as all our rules. Gaps within a visit are far
shorter than half an hour, and gaps between visits are far longer. No visit is long, and only the first page of a visit has
an external referrer or a campaign.

    python3 traffic.py COUNT > FILE
"""

import heapq
import itertools
import json
import random
import sys
import uuid
from datetime import datetime, timezone

START_MS = int(datetime(2026, 3, 10, tzinfo=timezone.utc).timestamp() * 1000)
# A busy shop, 200,000 events in a day and a half: a batch of 100 events spans a minute and some 45 visitors.
MEAN_MS_BETWEEN_EVENTS = 432
VISITORS = 6_000
MEAN_EVENTS_A_VISIT = 12
MAX_EVENTS_A_VISIT = 120
# A gap within a visit is mostly half a minute, seldom minutes, and never near 30 minutes.
MAX_PAUSE_MS = 20 * 60_000
# A gap between two visits of a visitor is always well above 30 minutes.
MIN_ABSENCE_MS = 45 * 60_000

SITE = "https://www.greenfield-outfitters.test"
REFERRERS = ["https://www.google.com/", "https://www.bing.com/", "https://news.partner.test/spring-guide", "$direct"]
CAMPAIGNS = ["spring_sale", "newsletter_march", "brand_search", "retargeting_basket"]
AGENT = "Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36"
# Operating system, its version, its name in the user agent, device type, width and height of the screen.
DEVICES = [
    ("Windows", "11", "Windows NT 10.0; Win64; x64", "Desktop", 1920, 1080),
    ("Mac OS X", "15.3", "Macintosh; Intel Mac OS X 10_15_7", "Desktop", 1512, 982),
    ("Android", "16", "Linux; Android 10; K", "Mobile", 412, 915),
    ("iOS", "19.2", "iPhone; CPU iPhone OS 19_2 like Mac OS X", "Mobile", 390, 844),
]
PLACES = [("DE", "Berlin", "Europe/Berlin"), ("FR", "Lyon", "Europe/Paris"), ("US", "Portland", "America/Los_Angeles")]
SHELVES = ["jackets", "hiking-boots", "backpacks", "tents", "sleeping-bags", "headlamps"]
ACTIONS = ["$autocapture", "product_viewed", "filter_applied", "cart_item_added", "checkout_started", "order_placed"]


class Visitor:
    """A visitor: the id, the device, and when the next visit may begin."""

    def __init__(self, rng, number):
        self.distinct_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        self.device = rng.choice(DEVICES)
        self.place = rng.choice(PLACES)
        self.build = rng.randrange(1000, 9999)
        self.plan = rng.choice(["none", "none", "club", "club_plus"])
        self.variant = rng.choice(["control", "test"])
        self.number = number
        self.free_at = 0


class Visit:
    """A visit that has begun."""

    def __init__(self, rng, visitor):
        self.visitor = visitor
        self.events = min(1 + int(rng.expovariate(1 / (MEAN_EVENTS_A_VISIT - 0.5))), MAX_EVENTS_A_VISIT)
        self.referrer = rng.choice(REFERRERS)
        self.campaign = rng.choice(CAMPAIGNS) if rng.random() < 0.15 else None
        self.url = None
        self.done = 0


def page(rng, visit):
    """Returns the URL of the next page, of about 80 bytes."""
    shelf = rng.choice(SHELVES)
    url = f"{SITE}/en/shop/{shelf}/{shelf}-{rng.randrange(100, 999)}?page={rng.randrange(1, 9)}"
    if visit.done == 0 and visit.campaign:
        url += f"&utm_source=mail&utm_medium=cpc&utm_campaign={visit.campaign}"
    return url


def event(rng, visit, at):
    """Returns the next event of a visit, at a time."""
    is_view = visit.done == 0 or rng.random() < 0.45
    if is_view:
        visit.referrer, visit.url = visit.url or visit.referrer, page(rng, visit)
    visit.done += 1
    time = datetime.fromtimestamp(at / 1000, timezone.utc).isoformat(timespec="milliseconds")
    return {
        "uuid": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "event": "$pageview" if is_view else rng.choice(ACTIONS),
        "distinct_id": visit.visitor.distinct_id,
        "timestamp": time.replace("+00:00", "Z"),
        "properties": properties(rng, visit),
    }


def properties(rng, visit):
    """Returns the properties of an event, like those of a browser's library: about 850 bytes."""
    visitor = visit.visitor
    system, version, agent, kind, width, height = visitor.device
    country, city, zone = visitor.place
    return {
        "$current_url": visit.url,
        "$referrer": visit.referrer,
        "$browser": "Chrome",
        "$browser_version": 145,
        "$os": system,
        "$os_version": version,
        "$device_type": kind,
        "$screen_width": width,
        "$screen_height": height,
        "$raw_user_agent": AGENT.format(agent),
        "$lib": "web",
        "$lib_version": "1.336.4",
        "$insert_id": f"{rng.getrandbits(80):020x}",
        "$geoip_country_code": country,
        "$geoip_city_name": city,
        "$geoip_time_zone": zone,
        "title": "Greenfield Outfitters · everything for days outside",
        "plan": visitor.plan,
        "experiment_checkout": visitor.variant,
        "build": f"web-2026.03.{visitor.build}",
        "basket_value": round(rng.uniform(0, 400), 2),
        "basket_items": rng.randrange(0, 8),
        "is_logged_in": visitor.plan != "none",
        "scroll_depth": round(rng.random(), 3),
        "tags": ["outdoor", rng.choice(SHELVES)],
    }


def pause(rng):
    return min(1_000 + int(rng.lognormvariate(9.7, 1.1)), MAX_PAUSE_MS)


def arrivals(rng, visitors):
    """Yields the beginnings of visits: a time and a visitor. The first visitors come most often, by Zipf's law."""
    weights = list(itertools.accumulate(1 / (visitor.number + 20) for visitor in visitors))
    at = START_MS
    while True:
        at += 1 + int(rng.expovariate(1 / (MEAN_MS_BETWEEN_EVENTS * MEAN_EVENTS_A_VISIT)))
        yield at, rng.choices(visitors, cum_weights=weights)[0]


def events(seed):
    """Yields events without end, in event-time order."""
    rng = random.Random(seed)
    visitors = [Visitor(rng, number) for number in range(VISITORS)]
    beginnings = arrivals(rng, visitors)
    next_at, visitor = next(beginnings)
    # The time of the next event of each visit that has begun. The number gives visits with equal times a fixed order.
    active, number = [], itertools.count()
    while True:
        while not active or next_at <= active[0][0]:
            if visitor.free_at <= next_at:
                visitor.free_at = sys.maxsize
                heapq.heappush(active, (next_at, next(number), Visit(rng, visitor)))
            next_at, visitor = next(beginnings)
        at, _, visit = heapq.heappop(active)
        yield event(rng, visit, at)
        if visit.done < visit.events:
            heapq.heappush(active, (at + pause(rng), next(number), visit))
        else:
            visit.visitor.free_at = at + MIN_ABSENCE_MS


def write(count, out, seed=20260310):
    for one in itertools.islice(events(seed), count):
        out.write(json.dumps(one, ensure_ascii=False, separators=(",", ":")))
        out.write("\n")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    write(int(sys.argv[1]), sys.stdout)
