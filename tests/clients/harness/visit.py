"""One visit of one client: its driver's run, what was on the wire, and what came out of the service."""
import dataclasses
import subprocess
import time

from service import events_of, rejected_of

DRIVER_SECONDS = 120


@dataclasses.dataclass
class Visit:
    """What was seen of a visit."""

    name: str  # of the visit; its user is called after it
    sent: set  # ids of the events that the client sent
    passed: list  # ids of the events that reached the service, each as often as it did
    events: dict  # what came out: annotated events by `uuid`
    faults: list  # sentences about what no visit may show
    sessions: dict = dataclasses.field(default_factory=dict)  # final sessions by id, known later

    @property
    def duplicates(self):
        """Returns how many events reached the service again."""
        return len(self.passed) - len(set(self.passed))

    @property
    def counted(self):
        """Returns how many events the final sessions count."""
        return sum(session["event_count"] for session in self.sessions.values())

    @property
    def users(self):
        """Returns the users whom the final sessions record."""
        return {session.get("user_id") for session in self.sessions.values()} - {None}

    def countable(self, not_counted):
        """Returns the events that count in a session: all with one, less those of some names."""
        events = self.events.values()
        return [event for event in events if event["properties"].get("$session_id") and event["event"] not in not_counted]

    def session_ids(self):
        """Returns the sessions that the annotated events name."""
        found = {event["properties"].get("$session_id") for event in self.events.values()}
        return found - {None}


def drive(name, command, environment, service, proxy, fault):
    """Runs a driver against the proxy and returns the visit."""
    before = len(service.lines())
    proxy.begin(fault)
    faults = []
    command = [*command, f"http://127.0.0.1:{proxy.server_port}", name]
    how = {"env": environment, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": DRIVER_SECONDS}
    try:
        done = subprocess.run(command, **how)
        if done.returncode != 0:
            faults.append(f"the driver ended with {done.returncode}: {done.stderr[-600:]}")
    except subprocess.TimeoutExpired:
        faults.append(f"the driver did not end within {DRIVER_SECONDS} s")
    settle(service)
    lines = service.lines()[before:]
    faults += [f"the service answered {refused}" for refused in proxy.refused]
    faults += [f"an event was rejected: {line['code']}" for line in rejected_of(lines)]
    return Visit(name, set(proxy.sent), list(proxy.passed), events_of(lines), faults)


def settle(service):
    """Waits until the service has written nothing for a moment: a client may end before its last answer is there."""
    size = -1
    while size != (size := service.out.stat().st_size):
        time.sleep(0.5)
