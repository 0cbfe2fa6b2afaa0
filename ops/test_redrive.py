"""Tests of ops/redrive on an emulated SQS (moto). `ci/redrive` runs them."""
import base64
import gzip
import importlib.machinery
import importlib.util
import json
import pathlib
import time

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

ROOT = pathlib.Path(__file__).resolve().parent.parent
EVENT = {"event": "$pageview", "distinct_id": "ada", "timestamp": "2026-03-10T11:50:00Z"}
NOTIFICATION = {"Type": "Notification", "MessageId": "n", "TopicArn": "arn:aws:sns:x:1:t", "Message": json.dumps(EVENT)}
GZIP = base64.b64encode(gzip.compress(json.dumps([EVENT]).encode())).decode()
# Bodies that are sent again as they are.
BODIES = {
    "event": json.dumps(EVENT),
    "array": "\n [" + json.dumps(EVENT) + "]",
    "lines": json.dumps(EVENT) + "\n" + json.dumps(EVENT),
    "byte order mark": "\ufeff" + json.dumps(EVENT),
    "gzip": GZIP,
    "gzip, not padded": GZIP.rstrip("="),
    "base64": base64.b64encode(json.dumps(EVENT).encode()).decode(),
    "topic": json.dumps(NOTIFICATION, indent=1),
    "bus": json.dumps({"id": "b", "detail-type": "d", "source": "s", "detail": EVENT}),
    "an event with a member of Lambda's": json.dumps(EVENT | {"requestContext": {}}),
    "JSON with an error": '{"event": ',
    "long": json.dumps(EVENT | {"properties": {"text": "é" * 60_000}}),
}
# Bodies that stay, and a part of the reason.
LEFT = {
    "<html>502 Bad Gateway</html>": "neither JSON",
    "hello": "neither JSON",
    base64.b64encode(b"hello, world").decode(): "not of JSON",
    base64.b64encode(gzip.compress(b"hello")).decode(): "not of JSON",
    base64.b64encode(b"\x1f\x8bnot gzip").decode(): "neither JSON",
    json.dumps({"requestContext": {}, "KinesisBatchInfo": {"shardId": "s"}}): "Lambda wrote it",
    "7": "neither JSON",
}


def load():
    loader = importlib.machinery.SourceFileLoader("redrive", str(ROOT / "ops" / "redrive"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("redrive", loader))
    loader.exec_module(module)
    module.WAIT_SECONDS = 0
    return module


redrive = load()


class World:
    """Two queues of the emulator. `faults` decides which calls fail."""

    def __init__(self, fifo=False):
        self.sqs = boto3.client("sqs", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        suffix, attributes = (".fifo", {"FifoQueue": "true"}) if fifo else ("", {})
        self.dead = self.sqs.create_queue(QueueName=f"dead{suffix}", Attributes=attributes)["QueueUrl"]
        self.input = self.sqs.create_queue(QueueName=f"input{suffix}", Attributes=attributes)["QueueUrl"]
        self.fails = {}

    def __getattr__(self, name):
        def call(**arguments):
            result = None
            if name not in self.fails or self.fails[name] != "before":
                result = getattr(self.sqs, name)(**arguments)
            if name in self.fails:
                code = self.fails[name] if self.fails[name] not in ("before", "after") else "ServiceUnavailable"
                raise ClientError({"Error": {"Code": code, "Message": "a fault"}}, name)
            return result

        return call

    def put(self, body, **more):
        return self.sqs.send_message(QueueUrl=self.dead, MessageBody=body, **more)["MessageId"]

    def run(self, *arguments):
        return redrive.main([*arguments, self.dead, self.input], self)

    def take(self, queue):
        """Returns all messages of a queue, and takes them out."""
        messages = []
        while batch := self.sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in batch:
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            messages.extend(batch)
        return messages


def sent_with(message):
    return {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items() if "StringValue" in value}


@pytest.fixture
def world():
    with mock_aws():
        yield World()


def test_bodies_and_attributes_stay_and_the_first_time_and_id_travel(world, capsys):
    ids, began = {}, int(time.time() * 1000)
    binary = {"DataType": "Binary", "BinaryValue": b"\x00\x01"}
    gzip_too = {"DataType": "String", "StringValue": "gzip"}
    for name, body in BODIES.items():
        attributes = {"content-encoding": gzip_too, "trace": binary} if name.startswith("gzip") else {}
        ids[world.put(body, MessageAttributes=attributes)] = (body, attributes)
    ended = int(time.time() * 1000)
    time.sleep(0.01)
    assert world.run() == 0
    assert f"{len(BODIES)} moved, 0 left, first sent from " in capsys.readouterr().out
    moved = world.take(world.input)
    assert len(moved) == len(BODIES) and not world.take(world.dead)
    for message in moved:
        sent = sent_with(message)
        body, attributes = ids.pop(sent["session-tracking-message-id"])
        assert message["Body"] == body
        assert began <= int(sent["session-tracking-received-at"]) <= ended < int(message["Attributes"]["SentTimestamp"])
        assert attributes.keys() == message["MessageAttributes"].keys() - {"session-tracking-message-id", "session-tracking-received-at"}
        if attributes:
            assert message["MessageAttributes"]["trace"]["BinaryValue"] == b"\x00\x01"


def test_what_cannot_be_events_stays_and_is_reported(world, capsys):
    for body in LEFT:
        world.put(body)
    world.put(BODIES["event"])
    many = {f"a{at}": {"DataType": "String", "StringValue": "x"} for at in range(9)}
    world.put(BODIES["array"], MessageAttributes=many)
    assert world.run() == 1
    captured = capsys.readouterr()
    assert "1 moved, 8 left" in captured.out
    assert all(reason in captured.err for reason in [*LEFT.values(), "more than 8 attributes"])
    assert "hello" not in captured.err and "html" not in captured.err, "no body in the log"
    assert [message["Body"] for message in world.take(world.input)] == [BODIES["event"]]
    # At once, for the next run or for whoever looks.
    assert sorted(message["Body"] for message in world.take(world.dead)) == sorted([*LEFT, BODIES["array"]])


def test_a_dry_run_changes_nothing(world, capsys):
    for body in [*BODIES.values(), *LEFT]:
        world.put(body)
    assert world.run("--dry-run") == 1
    assert f"{len(BODIES)} would be moved, {len(LEFT)} would be left" in capsys.readouterr().out
    assert not world.take(world.input) and len(world.take(world.dead)) == len(BODIES) + len(LEFT)


@pytest.mark.parametrize("call", ["send_message_batch", "delete_message_batch"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_interrupted_is_repeated(world, call, when, monkeypatch):
    first = {world.put(json.dumps(EVENT | {"uuid": str(at)})) for at in range(25)}
    monkeypatch.setattr(redrive, "VISIBILITY_SECONDS", 1)
    world.fails = {call: when}
    assert world.run() == 1
    world.fails = {}
    time.sleep(1.1)
    assert world.run() == 0
    assert not world.take(world.dead)
    moved = world.take(world.input)
    assert {sent_with(message)["session-tracking-message-id"] for message in moved} == first, "nothing is lost"
    for message in moved:
        twice = [other for other in moved if sent_with(other) == sent_with(message)]
        assert len({other["Body"] for other in twice}) == 1, "what comes twice comes with one id"


def test_a_message_that_fails_again_keeps_its_first_time(world):
    first = world.put(BODIES["event"])
    world.run()
    [once] = world.take(world.input)
    world.put(once["Body"], MessageAttributes={
        name: {part: value[part] for part in ("DataType", "StringValue")} for name, value in once["MessageAttributes"].items()
    })
    time.sleep(0.01)
    world.run()
    [again] = world.take(world.input)
    assert sent_with(again) == sent_with(once) and sent_with(again)["session-tracking-message-id"] == first


def test_one_message_that_is_not_taken_does_not_stop_the_others(world, capsys):
    for at in range(12):
        world.put(json.dumps(EVENT | {"uuid": str(at)}))
    send = world.sqs.send_message_batch

    def picky(**arguments):
        if any('"uuid": "7"' in entry["MessageBody"] for entry in arguments["Entries"]):
            raise ClientError({"Error": {"Code": "InvalidMessageContents", "Message": "a character"}}, "SendMessageBatch")
        return send(**arguments)

    world.sqs.send_message_batch = picky
    assert world.run() == 1
    assert "11 moved, 1 left" in capsys.readouterr().out
    assert len(world.take(world.input)) == 11 and len(world.take(world.dead)) == 1


def test_refused_credentials_end_the_run_and_leave_all(world, capsys):
    world.put(BODIES["event"])
    world.fails = {"send_message_batch": "AccessDenied"}
    assert world.run() == 1
    assert "0 moved, 0 left" in capsys.readouterr().err
    world.fails = {}
    assert len(world.take(world.dead)) == 1


def test_a_run_is_bounded(world):
    for at in range(25):
        world.put(json.dumps(EVENT | {"uuid": str(at)}))
    began = time.monotonic()
    assert world.run("--max", "12", "--rate", "40") == 0
    assert time.monotonic() - began >= 12 / 40
    assert (len(world.take(world.input)), len(world.take(world.dead))) == (12, 13)


def test_groups_of_a_fifo_queue_stay_in_order():
    with mock_aws():
        world = World(fifo=True)
        for at in range(12):
            world.put(json.dumps(EVENT | {"uuid": str(at)}), MessageGroupId=f"g{at % 2}", MessageDeduplicationId=f"d{at}")
        assert world.run() == 0
        moved = world.take(world.input)
        for group in ("g0", "g1"):
            uuids = [json.loads(message["Body"])["uuid"] for message in moved if message["Attributes"]["MessageGroupId"] == group]
            assert uuids == sorted(uuids, key=int) and len(uuids) == 6
        assert all(
            message["Attributes"]["MessageDeduplicationId"] == "redrive-" + sent_with(message)["session-tracking-message-id"] for message in moved
        )


def test_the_command_line_is_checked(capsys):
    for arguments in [[], ["q"], ["q", "q"], ["--max", "0", "a", "b"], ["--rate", "0", "a", "b"], ["--rate", "x", "a", "b"]]:
        with pytest.raises(SystemExit) as stopped:
            redrive.main(arguments, object())
        assert stopped.value.code == 2, arguments


def test_the_sample_payload_has_what_the_script_sends(world):
    """events/sqs-redriven.json is what the ingest function gets of such a message; Rust's tests run it."""
    first = world.put(BODIES["event"])
    world.run()
    [message] = world.take(world.input)
    record = json.loads((ROOT / "events" / "sqs-redriven.json").read_text(encoding="utf-8"))["Records"][0]
    names = {name: value["dataType"] for name, value in record["messageAttributes"].items()}
    assert names == {name: value["DataType"] for name, value in message["MessageAttributes"].items()}
    assert record["messageAttributes"]["session-tracking-received-at"]["stringValue"].isdigit() and sent_with(message)["session-tracking-message-id"] == first
