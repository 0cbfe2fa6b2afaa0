"""A proxy between a client and the service, which counts events and can fail once."""
import http.client
import http.server
import json
import threading

from wire import event_ids

# What an overloaded service answers, with the members by which clients know a failure.
UNAVAILABLE = json.dumps({"status": 0, "error": "try again", "code": 503, "message": "try again"}).encode()
SKIPPED = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on to the service on another port of this machine."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, service_port):
        super().__init__(("127.0.0.1", 0), Handler)
        self.service_port = service_port
        self.lock = threading.Lock()
        self.begin(None)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def begin(self, fault):
        """Begins to count anew. `fault`: what happens to the next request with events, or None.

        "503": it does not reach the service and is answered 503. "lost": it reaches the service, whose answer gives way to a 503,
        as a gateway does when the service takes too long.
        """
        with self.lock:
            self.fault = fault
            self.sent = set()  # ids of events that the client sent, whatever became of them
            self.passed = []  # ids of events that reached the service, each as often as it did
            self.refused = []  # answers to requests with events that were not 2xx, but the proxy's own

    def take_fault(self, ids):
        """Returns the fault for a request, which is due once."""
        with self.lock:
            self.sent.update(ids)
            fault, self.fault = (self.fault, None) if ids else (None, self.fault)
            if fault != "503":
                self.passed.extend(ids)
            return fault

    def handle_error(self, request, client_address):
        """A client that went away is no fault: browsers do when a page is left."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path, _, query = self.path.partition("?")
        ids = event_ids(path, query, body)
        fault = self.server.take_fault(ids)
        if fault == "503":
            return self.answer(503, self.unavailable_headers(), UNAVAILABLE)
        status, headers, answer = self.ask(body)
        if ids and not 200 <= status < 300:
            with self.server.lock:
                self.server.refused.append(f"{status} for {self.command} {path}: {answer[:200].decode(errors='replace')}")
        if fault == "lost":
            status, headers, answer = 503, self.unavailable_headers(), UNAVAILABLE
        return self.answer(status, headers, answer)

    do_GET = do_POST = do_OPTIONS = do_HEAD = pass_on

    def ask(self, body):
        """Returns the service's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.service_port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in SKIPPED}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return found

    def unavailable_headers(self):
        origin = self.headers.get("origin")
        cors = [] if origin is None else [
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "retry-after"),
        ]
        return [("content-type", "application/json"), ("retry-after", "1"), *cors]

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in SKIPPED:
                self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing: bodies and addresses are nobody's business."""
