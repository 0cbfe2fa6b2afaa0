"""What every server's driver sends: a visit with a login in the middle, and an order an hour before it."""
import datetime
import sys
import time

# The driver's arguments: the address to send to, and a name that no other visit has.
COLLECTOR, VISIT = sys.argv[1:3]
DEVICE, USER = f"device-{VISIT}", f"user-{VISIT}"

ENTRY = "https://shop.test/?utm_source=news&utm_medium=mail&utm_campaign=spring"
ACCOUNT = "https://shop.test/account"
REFERRER = "https://www.search.test/"
ORDER = {"total": 12.5, "items": [{"sku": "a1", "n": 2}], "gift": False}


def an_hour_ago():
    """Returns a time before the visit, as a date that knows its zone."""
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)


def pause():
    """Lets a moment pass, as between two steps of a person: clients date their events to the millisecond at best."""
    time.sleep(0.02)
