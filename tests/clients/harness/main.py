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
import threading
import time

from proxy import Proxy
from rows import row, table
from service import Service, sessions_of
from visit import drive

HERE = pathlib.Path(__file__).resolve().parent.parent
# How many clients make visits at the same time, on a machine with two cores. Waiting for the ends of sessions costs nothing.
AT_ONCE = threading.Semaphore(3)


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


def visits(service, name, expected):
    """Lets a client make its visits, one after the other, and returns them."""
    proxy, command = Proxy(service.port), command_of(expected, name)
    faults = {"plain": None, "503": "503", "lost": "lost"}
    return [drive(f"{name}-{title}", command, environment(), service, proxy, fault) for title, fault in faults.items()]


def wait_for_ends(service, made):
    """Waits until the sessions of the visits are final, and tells each visit its own."""
    named = set().union(*(visit.session_ids() for visit in made))
    until = time.monotonic() + service.wait_seconds + 15
    while time.monotonic() < until and not named <= set(sessions_of(service.lines())):
        time.sleep(1)
    sessions = sessions_of(service.lines())
    for visit in made:
        visit.sessions = {session_id: sessions[session_id] for session_id in visit.session_ids() & set(sessions)}


def run(program, folder, name, expected, times):
    """Runs a client against a service of its own, and returns its row and its faults."""
    folder.mkdir(parents=True, exist_ok=True)
    with AT_ONCE:
        service = Service(program, folder, times["timeout_seconds"], times["lateness_seconds"])
        try:
            made = visits(service, name, expected)
        except BaseException:
            service.stop()
            raise
    try:
        wait_for_ends(service, made)
    finally:
        service.stop()
    return row(name, version_of(expected), expected, *made)


def main():
    expected = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
    clients = expected["clients"]
    options = arguments(clients)
    chosen = options.clients or [name for name in clients if options.browsers or not clients[name].get("browser")]
    if not os.environ["CHROMIUM"] and any(clients[name].get("browser") for name in chosen):
        sys.exit("tests/clients/run: a browser's client needs Chromium: add --browsers, or set CHROMIUM to its path")
    program = os.environ["LOCAL"]
    with tempfile.TemporaryDirectory() as temporary, concurrent.futures.ThreadPoolExecutor(len(chosen)) as pool:
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
