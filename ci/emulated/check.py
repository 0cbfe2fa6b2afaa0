"""Deploys the packaged template to the emulator and uses it: events in and out, failures, closing, an update, a deletion, and a
new stack on the kept table. Run by ci/deploy."""
import json
import subprocess
import sys
import time

from stack import Stack, drain, dynamodb, exists, rule, send, sqs, waiting

failed = []


def check(what, holds, detail=""):
    print(f"{'ok     ' if holds else 'NOT OK '} {what}" + (f"  [{detail}]" if detail != "" else ""), flush=True)
    if not holds:
        failed.append(what)


def view(uuid, visitor, **more):
    properties = {"$current_url": f"https://shop.test/{uuid}"}
    return json.dumps(
        {"uuid": uuid, "event": "$pageview", "distinct_id": visitor, "properties": properties, **more}
    )


def session_of(answer):
    return answer["events"][0]["properties"]["$session_id"]


def views(lines):
    """Returns the ids of the annotated page views among lines of the output."""
    return sorted(line["uuid"] for line in lines if line["event"] == "$pageview" and line["properties"].get("$session_id"))


def named(lines, event):
    return [line for line in lines if line["event"] == event]


def deployed(stack):
    succeeded, printed, took = stack.deploy()
    check("the packaged template deploys", succeeded, took)
    if not succeeded:
        sys.exit(printed[-3000:])
    wanted = ["ApiUrl", "CloseFunctionName", "IngestFunctionName", "TableName"]
    wanted += [f"{queue}QueueUrl" for queue in ("Input", "InputDeadLetter", "Output", "Rejects")]
    check("all outputs are there", set(wanted) <= set(stack.outputs), f"{len(stack.outputs)}")
    types = [mapping["FunctionResponseTypes"] for mapping in stack.mappings()]
    check("failed messages of a batch are asked for", types == [["ReportBatchItemFailures"]], types)


def requests(stack):
    """Returns the session that a page view of kim got."""
    status, answer = stack.http("POST", "/events", view("k1", "kim"))
    check("a posted event comes back with its session", status == 200, status)
    session = session_of(answer)
    body = view("k2", "kim") + '\n{"event":"nobody"}\n'
    status, answer = stack.http("POST", "/events", body, "application/x-ndjson")
    codes = [rejected["code"] for rejected in answer["rejected"]]
    joins = session_of(answer) == session
    check("a second event joins it, a bad one is rejected alone", joins and codes == ["missing_distinct_id"], codes)
    status, _ = stack.http("GET", f"/v1/sessions/{session}")
    check("an unsigned request does not read it", status == 403, status)
    read = stack.invoke(stack.ingest, {"get_session": session})
    check("a direct invocation reads it", read.get("event_count") == 2, read.get("event_count"))
    status, answer = stack.http("GET", "/health")
    check("/health answers", status == 200, answer)
    return session


def ends_and_erases(stack):
    _, answer = stack.http("POST", "/events", view("a1", "ada"))
    session = session_of(answer)
    ended = stack.invoke(stack.ingest, {"end_session": session})
    check("a session is ended by direct invocation", ended.get("is_active") is False)
    stack.invoke(stack.ingest, {"erase_visitor": "ada"})
    lines = drain(stack.queue("Output"), 20, lambda lines: named(lines, "$visitor_erased"))
    check("an erasure is emitted for consumers", len(named(lines, "$visitor_erased")) == 1)
    gone = stack.invoke(stack.ingest, {"get_session": session})
    check("what is erased is gone", gone["error"]["code"] == "not_found", gone.get("error", {}).get("code"))


def item_of(stack, visitor):
    return next(item for item in stack.items() if item["sk"]["S"].endswith("#" + visitor))


def queue(stack):
    """One message's visitor has an item that cannot be read; the others are well."""
    stack.http("POST", "/events", view("b0", "bob"))
    good = item_of(stack, "bob")
    # Another etag, too: otherwise a warm function would write what it remembers over the item.
    etag = bytes(byte ^ 1 for byte in good["etag"]["B"])
    broken = dict(good, state={"B": b"\x01\x02"}, etag={"B": etag})
    dynamodb.put_item(TableName=stack.table, Item=broken)
    sqs.set_queue_attributes(QueueUrl=stack.queue("Input"), Attributes={"VisibilityTimeout": "20"})
    send(stack.queue("Input"), [view("q1", "bea"), view("q2", "bob"), "this is no JSON", view("q3", "cyd")])
    lines = drain(stack.queue("Output"), 40, lambda lines: len(views(lines)) >= 2)
    check("the good messages of a batch come out", views(lines) == ["q1", "q3"], views(lines))
    lines = drain(stack.queue("Rejects"), 20, len)
    check("what can never be used is in the rejects", [line["code"] for line in lines] == ["invalid_json"])
    check("the failed message alone is still in the queue", waiting(stack.queue("Input")) == 1)
    dynamodb.put_item(TableName=stack.table, Item=good)
    lines = drain(stack.queue("Output"), 60, lambda lines: "q2" in views(lines))
    check("once the item is repaired, it alone comes again and out", views(lines) == ["q2"], views(lines))
    return broken, good


def dead_letters(stack, broken, good):
    source, dead = stack.queue("Input"), stack.queue("InputDeadLetter")
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"})
    sqs.set_queue_attributes(QueueUrl=source, Attributes={"VisibilityTimeout": "3", "RedrivePolicy": policy})
    dynamodb.put_item(TableName=stack.table, Item=broken)
    send(source, [view("q4", "bob")])
    until = time.time() + 60
    while time.time() < until and not waiting(dead):
        time.sleep(1)
    check("a message that keeps failing becomes a dead letter", waiting(dead) == 1, "after 2 receives, for this check")
    dynamodb.put_item(TableName=stack.table, Item=good)
    redrive(dead, source)
    lines = drain(stack.queue("Output"), 60, lambda lines: "q4" in views(lines))
    check("redriven, it comes out", views(lines) == ["q4"] and not waiting(dead), views(lines))


def redrive(dead, source):
    """Moves the dead letters back, as docs/operations.md tells."""
    command = [sys.executable, "-B", "ops/redrive", dead, source]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    check("ops/redrive moves the dead letters back", done.returncode == 0, done.stdout.strip().splitlines()[-1:])


def closing(stack):
    """What was received three hours ago is due at once."""
    schedule = rule(stack.resources["CloseFunctionEveryMinute"])
    check("the schedule is enabled", schedule["State"] == "ENABLED", schedule["ScheduleExpression"])
    then = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3 * 3600))
    old = [view(f"o{visitor}", visitor, timestamp=then, received_at=then) for visitor in ("dan", "eve")]
    send(stack.queue("Input"), old)
    started = time.time()
    lines = drain(stack.queue("Output"), 150, lambda lines: len(named(lines, "$session_end")) >= 2)
    ended = sorted(line["distinct_id"] for line in named(lines, "$session_end"))
    check("the schedule closes sessions that are over", ended == ["dan", "eve"], f"{time.time() - started:.0f} s")


def wrong_settings(stack):
    """Of each kind: what the template's bounds know, what only the functions know, and a table that they cannot use."""
    dynamodb.create_table(
        TableName="not-ours", BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    before = stack.environment()
    for parameter, value, sentence in [
        ("TimeoutSeconds", "0", "must be a number of seconds from 1 to 2592000"),
        ("Midnight", "Foo/Bar", "midnight is `Foo/Bar`; it must be a time zone's IANA name"),
        ("Projects", "/opt/none.json", "PROJECTS is `/opt/none.json`, which cannot be read"),
        ("TableName", "not-ours", "table not-ours has the keys [('id', 'HASH', 'S')]"),
    ]:
        succeeded, printed, took = stack.deploy(**{parameter: value})
        told = next((text for text in (stack.failure(), printed) if sentence in text), None)
        check(f"{parameter}={value} stops the deployment, which says why", not succeeded and told is not None, took)
        if told is None:
            print(stack.failure(), printed)
    check("the functions keep their settings", stack.environment() == before)
    status, _ = stack.http("POST", "/events", view("k1", "kim"))
    check("and go on", status == 200, status)


def update(stack, session):
    before = dict(stack.resources)
    succeeded, _, took = stack.deploy(TimeoutSeconds="900", KeepQueues="true")
    check("an update with another rule", succeeded, took)
    replaced = sorted(name for name in before if stack.resources.get(name) != before[name])
    check("it replaces nothing", not replaced, replaced)
    check("both functions have the new rule",
          {stack.environment(name)["TIMEOUT_SECONDS"] for name in ("IngestFunction", "CloseFunction")} == {"900"})
    _, answer = stack.http("POST", "/events", view("k1", "kim"))
    check("an event that is sent again finds its session from before", session_of(answer) == session)


def deletion(stack):
    """The update before this asked to keep the queues."""
    count = len(stack.items())
    send(stack.queue("Output"), ["a line that nobody has read"])
    succeeded, printed, took = stack.delete()
    check("the stack is deleted", succeeded, took if succeeded else printed[-200:])
    check("its table is kept, with its items", len(stack.items()) == count, f"{count} items")
    kept = [name for name in ("Input", "InputDeadLetter", "Output", "Rejects") if exists(stack.queue(name))]
    check("queues are kept as asked", kept == ["InputDeadLetter", "Output", "Rejects"], ", ".join(kept))
    check("unread lines are in the output", waiting(stack.queue("Output")) == 1)


def kept_table(table, session, log):
    """A new stack on the table of a deleted one."""
    # The emulator's table lost it with the stack, as a table does that is restored from a backup.
    ttl = {"Enabled": True, "AttributeName": "expires_at"}
    dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=ttl)
    stack = Stack("session-tracking-again", log)
    succeeded, printed, took = stack.deploy(TableName=table)
    check("a new stack takes the kept table", succeeded, took if succeeded else printed[-2000:])
    check("it makes no table of its own", "SessionsTable" not in stack.resources and stack.table == table)
    _, answer = stack.http("POST", "/events", view("k1", "kim"))
    check("a visitor is in the session from before", session_of(answer) == session)
    queues = [stack.queue(name) for name in ("InputDeadLetter", "Output", "Rejects")]
    stack.delete_at_once()
    check("the new stack is deleted, with its queues", not any(map(exists, queues)))
    check("the table is still there", len(stack.items()) > 0)


def main():
    log = sys.argv[1]
    stack = Stack("session-tracking", log)
    deployed(stack)
    session = requests(stack)
    ends_and_erases(stack)
    broken, good = queue(stack)
    dead_letters(stack, broken, good)
    closing(stack)
    wrong_settings(stack)
    update(stack, session)
    deletion(stack)
    kept_table(stack.table, session, log)
    print(NOT_SHOWN)
    print(f"ci/deploy: {'; '.join(failed)}: NOT OK" if failed else "ci/deploy: passed")
    sys.exit(bool(failed))


NOT_SHOWN = """
Not shown by an emulator: API Gateway's own routing, CORS, credentials, throttling and limits; IAM; KMS; TTL, point-in-time recovery;
the pollers' scaling, MaximumConcurrency; CloudWatch's metrics and alarms; CodeDeploy; Lambda's freezes, memory and time limits, cold
starts."""

if __name__ == "__main__":
    main()
