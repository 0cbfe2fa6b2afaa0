"""Drives real clients against `local serve`, each with a service of its own, and prints what became of their events.

Called by tests/clients/run, which installs what this needs.
"""
import argparse
import concurrent.futures
import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile
import time

from proxy import Proxy
from rows import row, table
from service import Service, sessions_of
from visit import drive

HERE = pathlib.Path(__file__).resolve().parent.parent
# How many clients run at the same time, for a machine with two cores.
AT_ONCE = 3


def arguments(known):
    parser = argparse.ArgumentParser(prog="tests/clients/run", description=__doc__.splitlines()[0])
    parser.add_argument("clients", metavar="CLIENT", nargs="*", help="which clients: all, if none is named")
    parser.add_argument("--browsers", action="store_true", help="the clients of browsers, too (needs Chromium)")
    parser.add_argument("--keep", metavar="FOLDER", help="keep each service's output and log in this folder")
    options = parser.parse_args()
    unknown = [name for name in options.clients if name not in known]
    if unknown:
        parser.error(f"no such client: {', '.join(unknown)}; the clients are {', '.join(known)}")
    return options


def command_of(expected, name):
    """Returns the command that drives a client, without its arguments."""
    driver = expected["driver"]
    if driver.endswith(".py"):
        return [sys.executable, "-B", str(HERE / driver)]
    if expected.get("browser"):
        return ["node", str(HERE / "browsers/drive.cjs"), name, str(HERE / driver)]
    return ["node", str(HERE / driver)]


def version_of(expected):
    """Returns the installed version of a client's package."""
    package = expected["package"]
    if expected["driver"].endswith(".py"):
        return importlib.metadata.version(package)
    return json.loads((pathlib.Path(os.environ["NODE_PATH"]) / package / "package.json").read_text())["version"]


def environment():
    """Returns the environment of a driver: all that it calls is on this machine."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    kept = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    return kept | {"NO_PROXY": "*", "no_proxy": "*"}


def run(program, folder, name, expected, times):
    """Lets a client make its visits and returns its row and its faults."""
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(program, folder, times["timeout_seconds"], times["lateness_seconds"])
    try:
        proxy = Proxy(service.port)
        url = f"http://127.0.0.1:{proxy.server_port}"
        visits = []
        for title, fault in (("plain", None), ("503", "503"), ("lost", "lost")):
            command = [*command_of(expected, name), url, f"{name}-{title}"]
            visits.append(drive(command, environment(), service, proxy, fault))
        waiting = set().union(*(visit.session_ids() for visit in visits))
        until = time.monotonic() + service.wait_seconds + 15
        while time.monotonic() < until and not waiting <= set(sessions_of(service.lines())):
            time.sleep(1)
        sessions = sessions_of(service.lines())
        for visit in visits:
            named = visit.session_ids()
            visit.sessions = {session_id: session for session_id, session in sessions.items() if session_id in named}
        return row(name, version_of(expected), expected, *visits)
    finally:
        service.stop()


def main():
    expected = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
    clients = expected["clients"]
    options = arguments(clients)
    chosen = options.clients or [name for name in clients if options.browsers or not clients[name].get("browser")]
    if not os.environ["CHROMIUM"] and any(clients[name].get("browser") for name in chosen):
        sys.exit("tests/clients/run: a browser's client needs Chromium: add --browsers, or set CHROMIUM to its path")
    program = os.environ["LOCAL"]
    with tempfile.TemporaryDirectory() as temporary, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        folder = pathlib.Path(options.keep or temporary)
        runs = {}
        for name in chosen:
            times = expected["browsers" if clients[name].get("browser") else "servers"]
            safe = name.replace("/", "_")
            runs[name] = pool.submit(run, program, folder / safe, name, clients[name], times)
        results = [future.result() for future in runs.values()]
    print(table([cells for cells, _ in results]))
    for name, (_, faults) in zip(runs, results):
        for fault in faults:
            print(f"{name}: {fault}", file=sys.stderr)
    wrong = sum(bool(faults) for _, faults in results)
    print(f"{len(results) - wrong} passed, {wrong} failed")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
