"""`local serve` on free ports, and what it writes to its standard output."""
import json
import re
import subprocess
import time

EMITTED = {"$session_end", "$session_merged", "$session_split"}


class Service:
    """A service of its own, with short sessions so that their ends come soon."""

    def __init__(self, program, folder, timeout_seconds, lateness_seconds):
        self.wait_seconds = timeout_seconds + lateness_seconds
        self.out, self.log = folder / "output", folder / "log"
        rules = json.dumps({"timeout_seconds": timeout_seconds, "lateness_seconds": lateness_seconds})
        command = [program, "serve", "--port", "0", "--dynamodb-port", "0"]
        command += ["--close-every", "1", "--grace", "0", "--rules", rules]
        with self.out.open("wb") as out, self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        self.port = self.started()

    def started(self):
        """Waits for the port that the service says it listens on."""
        for _ in range(200):
            found = re.search(rb"HTTP API +http://127\.0\.0\.1:(\d+)/", self.log.read_bytes())
            if found:
                return int(found[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the service did not start: {self.log.read_text()}")

    def lines(self):
        """Returns all whole lines so far, parsed."""
        whole, _, _ = self.out.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.split(b"\n") if line]

    def stop(self):
        """Ends the process."""
        self.process.terminate()
        self.process.wait(10)


def events_of(lines):
    """Returns the annotated events among the lines; an event that came twice is the later copy."""
    found = [line for line in lines if line.get("event") and line["event"] not in EMITTED and "code" not in line]
    return {line["uuid"]: line for line in found}


def rejected_of(lines):
    """Returns what the rejects queue would hold."""
    return [line for line in lines if "code" in line]


def sessions_of(lines):
    """Returns the final sessions by id: the last version of each end, less those that became part of another."""
    ends = {}
    for line in lines:
        if line.get("event") == "$session_end":
            new = line["properties"]
            if new["$session_version"] >= ends.get(new["$session_id"], new)["$session_version"]:
                ends[new["$session_id"]] = new
    for line in lines:
        if line.get("event") == "$session_merged":
            ends.pop(line["properties"]["from"], None)
    return {session_id: end["$session"] for session_id, end in ends.items()}
