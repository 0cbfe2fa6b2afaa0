"""The events of a request, as far as a reader needs to count them: their ids, read from the bytes and from nothing else.

It knows no dialect by name. An event is an object with one of the clients' ids. It shares nothing with the service's own reading
of these requests, so that the two check each other.
"""
import base64
import gzip
import json
import urllib.parse

IDS = ("uuid", "messageId", "eid", "insert_id")


def event_ids(path, query, body):
    """Returns the ids of a request's events, in order; none for a request that carries no event."""
    fields = dict(urllib.parse.parse_qsl(query))
    if "eid" in fields:
        return [fields["eid"]]
    if fields.get("rec") == "1":  # Matomo's events have no id: one that is like another in everything is that event again.
        return [query]
    if "flags" in path or "decide" in path:
        return []
    return list(walk(decoded(body)))


def decoded(body):
    """Returns the JSON of a body, or None: gzip, forms and base64 are told by the bytes."""
    try:
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        text = body.decode()
        if text[:1] not in "[{":
            text = dict(urllib.parse.parse_qsl(text))["data"]
        if text[:1] not in "[{":
            text = base64.b64decode(text).decode()
        return json.loads(text)
    except (KeyError, ValueError, OSError, EOFError):
        return None


def walk(value):
    """Yields the ids of the events in a JSON value. What an event holds is not looked into."""
    if isinstance(value, list):
        for element in value:
            yield from walk(element)
    if isinstance(value, dict):
        properties = value.get("properties")
        inner = properties.get("$insert_id") if isinstance(properties, dict) else None
        own = next((value[name] for name in IDS if name in value), inner)
        if own is not None:
            yield own
        else:
            for member in value.values():
                yield from walk(member)
