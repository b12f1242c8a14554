"""A server under mixed load for some minutes: what went wrong, how its memory moved, whether its audit log is whole.

    python tools/bench/soak.py target/release/eulalia runs/tiny/release [--minutes 15] [--clients 8]

Starts `eulalia serve` over TLS with an upstream that comes and goes (a small HTTP server of this script), and lets
clients ask: whole answers, streams, streams that are left, nonsense, wrong keys, models that are not there. Meanwhile it
renews the certificate, breaks it, makes and revokes keys, and asks for reloads. At the end it sends SIGTERM with streams
under way, expects exit code 0, and runs `eulalia verify` on the state. Prints answers by kind, every answer that no kind
explains, and the resident memory over time; exit code 1 if anything is unexplained, memory grows by more than a tenth after
the first quarter, or the log does not verify. The model's cache is filled before the clock starts: its pages are taken from
the system as they are first written, in steps of 2 MiB where those are large pages, and that is no growth. Needs Python alone, and `openssl` for the certificates.
"""

import argparse
import collections
import http.client
import http.server
import json
import os
import pathlib
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

# Tokens in a block of the cache (`model::BLOCK_POSITIONS`).
BLOCK_TOKENS = 64

# What each kind of request may be answered with. 429: a limit or a full queue; 503: the upstream is away.
EXPECTED = {
    "whole": {200, 429},
    "stream": {200, 429},
    "left": {200, 429},
    "upstream": {200, 429, 502, 503, 504},
    "nonsense": {400, 404},
    # The server answers before it has read everything, and closes; a client that still writes may find that first.
    "oversize": {413, "BrokenPipeError", "ConnectionResetError", "SSLEOFError"},
    "stranger": {401, 429},
    "metrics": {200},
    "revoked": {200, 401, 429},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eulalia", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--memory", type=int, default=18, help="of the model, MiB")
    parser.add_argument("--no-upstream", action="store_true", help="leave the flapping upstream out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return soak(arguments, pathlib.Path(folder))


class Soak:
    """What all threads share."""

    def __init__(self, arguments, folder):
        self.eulalia, self.folder, self.state = arguments.eulalia.resolve(), folder, folder / "state"
        self.port, self.upstream = free_port(), None
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.answers = collections.Counter()
        self.unexplained = collections.Counter()
        self.keys = []

    def note(self, kind, outcome, explained):
        with self.lock:
            self.answers[kind, outcome] += 1
            if not explained:
                self.unexplained[kind, outcome] += 1

    def connection(self):
        # The certificate changes under way and is not what is tested here.
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=120, context=context)

    def command(self, *words):
        result = subprocess.run([self.eulalia, *map(str, words)], capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"{words}: {result.stderr}")
        return result.stdout.strip()

    def new_key(self, role="user"):
        return self.command("keys", "new", "--state", self.state, "--role", role, "--label", "soak")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_certificate(folder, name="tls"):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / f"{name}.key.new", "-out", folder / f"{name}.crt.new"],
        check=True, capture_output=True,
    )  # fmt: skip
    for end in ("key", "crt"):
        os.replace(folder / f"{name}.{end}.new", folder / f"{name}.{end}")


class Flapping:
    """An engine that answers for some seconds and is away for some seconds."""

    def __init__(self, port, done):
        self.port, self.done = port, done

    def run(self):
        while not self.done.is_set():
            server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Engine)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.done.wait(random.uniform(3, 8))
            server.shutdown()
            server.server_close()
            self.done.wait(random.uniform(1, 5))


class Engine(http.server.BaseHTTPRequestHandler):
    """As little of the OpenAI API as a gateway needs."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.say({"status": "ok", "object": "list", "data": [{"id": "stub", "object": "model"}]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        head = {"id": "x", "created": 1, "model": "stub"}
        if not request.get("stream"):
            message = {"role": "assistant", "content": "one two three"}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            return self.say(head | {"object": "chat.completion", "choices": [choice], "usage": usage})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        chunk = head | {"object": "chat.completion.chunk"}
        try:
            for word in ("one ", "two ", "three"):
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                self.wfile.write(b"data: " + json.dumps(chunk | {"choices": [choice]}).encode() + b"\n\n")
                time.sleep(0.02)
            choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
            self.wfile.write(b"data: " + json.dumps(chunk | {"choices": [choice]}).encode() + b"\n\n")
            self.wfile.write(b"data: " + json.dumps(chunk | {"choices": [], "usage": usage}).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass
        self.close_connection = True
        return None

    def say(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def settings(soak, arguments):
    text = f"""
state = "{soak.state}"
address = "127.0.0.1:{soak.port}"
body_limit_bytes = 65536
drain_seconds = 20
[tls]
certificate = "{soak.folder}/tls.crt"
private_key = "{soak.folder}/tls.key"
[log]
format = "json"
[[models]]
name = "own"
path = "{arguments.model.resolve()}"
memory = {arguments.memory}
"""
    if soak.upstream:
        text += f"""
[[upstreams]]
name = "flapping"
url = "http://127.0.0.1:{soak.upstream}/v1"
models = {{ stub = "stub" }}
health_seconds = 1
rest_seconds = 2
"""
    (soak.folder / "settings.toml").write_text(text)


def ask(soak, kind, method, path, key, body=None, leave_after=None):
    """One request; `leave_after` so many bytes of the answer its client goes."""
    connection = soak.connection()
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        if leave_after is not None:
            response.read(leave_after)
        else:
            text = response.read()
            if response.status == 200 and kind in ("stream", "upstream") and body.get("stream"):
                whole = text.rstrip().endswith(b"data: [DONE]")
                # A stream whose upstream went away ends with an error as its last event.
                if not whole and not (kind == "upstream" and b'"error"' in text):
                    return soak.note(kind, "stream without end", soak.done.is_set())
        soak.note(kind, response.status, response.status in EXPECTED[kind])
    except (OSError, http.client.HTTPException) as error:
        # While the server goes, connections are refused.
        name = type(error).__name__
        soak.note(kind, name, soak.done.is_set() or name in EXPECTED[kind])
    finally:
        connection.close()
    return None


def client(soak, number):
    chance = random.Random(number)
    while not soak.done.is_set():
        key = soak.keys[0]
        words = " ".join(chance.choice(["Es", "war", "einmal", "il", "était", "ona", "była"]) for _ in range(12))
        body = {"model": "own", "prompt": words, "max_tokens": chance.randint(1, 24), "seed": number}
        kind = chance.choice(["whole", "whole", "stream", "stream", "left", "upstream", "upstream", "nonsense",
                              "oversize", "stranger", "metrics", "revoked"])  # fmt: skip
        if kind == "upstream" and not soak.upstream:
            kind = "stream"
        if kind == "whole":
            ask(soak, kind, "POST", "/v1/completions", key, body)
        elif kind == "stream":
            ask(soak, kind, "POST", "/v1/completions", key, body | {"stream": True})
        elif kind == "left":
            ask(soak, kind, "POST", "/v1/completions", key, body | {"stream": True, "max_tokens": 200}, 40)
        elif kind == "upstream":
            chat = {"model": "stub", "messages": [{"role": "user", "content": words}]}
            ask(soak, kind, "POST", "/v1/chat/completions", key, chat | {"stream": chance.random() < 0.5})
        elif kind == "nonsense":
            bad = chance.choice([{"model": "none", "prompt": "a"}, {"model": "own"}, {"model": "own", "prompt": "a", "n": 99},
                                 {"model": "own", "prompt": "a", "nonsense": 1}, [1, 2]])  # fmt: skip
            ask(soak, kind, "POST", "/v1/completions", key, bad)
        elif kind == "oversize":
            ask(soak, kind, "POST", "/v1/completions", key, {"x": "y" * 70_000})
        elif kind == "stranger":
            ask(soak, kind, "GET", "/v1/models", f"{key[:-1]}{'x' if key[-1] != 'x' else 'y'}")
            time.sleep(0.2)
        elif kind == "metrics":
            ask(soak, kind, "GET", "/metrics", soak.keys[1])
        else:
            ask(soak, kind, "GET", "/v1/models", soak.keys[-1])
        time.sleep(chance.uniform(0, 0.05))


def fill_cache(soak):
    """Writes every block of the model's cache: texts that nobody has sent are kept until the cache has held twice its blocks."""
    blocks, kept, chance = cache_blocks(soak), 0, random.Random(0)
    while kept < 2 * blocks:
        words = " ".join(str(chance.randrange(10**6)) for _ in range(120))
        answer = answer_to(soak, "POST", "/v1/completions", soak.keys[0], {"model": "own", "prompt": words, "max_tokens": 1})
        # A block is kept once it is complete.
        new = json.loads(answer)["usage"]["prompt_tokens"] // BLOCK_TOKENS
        if new == 0:
            sys.exit("the prompts that should fill the cache are shorter than one of its blocks")
        kept += new
    print(f"the cache's {blocks} blocks are written")


def cache_blocks(soak):
    for line in answer_to(soak, "GET", "/metrics", soak.keys[1]).decode().splitlines():
        if line.startswith('eulalia_cache_blocks{model="own"}'):
            return int(line.split()[-1])
    sys.exit("the metrics do not say how many blocks the cache has")


def answer_to(soak, method, path, key, body=None):
    connection = soak.connection()
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            sys.exit(f"{method} {path}: {response.status} {text.decode()}")
        return text
    finally:
        connection.close()


def trouble(soak, server):
    """Keys, certificates and settings change under the load."""
    while not soak.done.wait(5):
        key = soak.new_key()
        soak.keys[2:] = [key]
        soak.command("keys", "revoke", key.split("-")[1][:8], "--state", soak.state)
        which = random.choice(["renew", "break", "reload", "reload"])
        if which == "renew":
            make_certificate(soak.folder)
        elif which == "break":
            whole = (soak.folder / "tls.crt").read_bytes()
            (soak.folder / "tls.crt").write_text("broken")
            soak.done.wait(3)
            (soak.folder / "tls.crt").write_bytes(whole)
        else:
            server.send_signal(signal.SIGHUP)


def memory_kibibytes(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def soak(arguments, folder):
    soak = Soak(arguments, folder)
    make_certificate(folder)
    if not arguments.no_upstream:
        soak.upstream = free_port()
        threading.Thread(target=Flapping(soak.upstream, soak.done).run, daemon=True).start()
        time.sleep(0.5)
    settings(soak, arguments)
    soak.keys = [soak.new_key(), soak.new_key("metrics"), soak.new_key()]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [soak.eulalia, "serve", "--config", folder / "settings.toml"], stdout=subprocess.DEVNULL, stderr=log
        )
    wait_until_open(soak, server)
    fill_cache(soak)
    threads = [threading.Thread(target=client, args=(soak, number), daemon=True) for number in range(arguments.clients)]
    threads.append(threading.Thread(target=trouble, args=(soak, server), daemon=True))
    for thread in threads:
        thread.start()
    began, memory = time.monotonic(), []
    while (passed := time.monotonic() - began) < arguments.minutes * 60 and server.poll() is None:
        memory.append((passed, memory_kibibytes(server)))
        time.sleep(2)
    alive = server.poll() is None
    soak.done.set()
    server.terminate()
    code = server.wait(60)
    for thread in threads:
        thread.join(30)
    verified = subprocess.run([soak.eulalia, "verify", soak.state], capture_output=True, text=True)
    return report(soak, arguments, memory, alive, code, verified)


def wait_until_open(soak, server):
    for _ in range(600):
        if server.poll() is not None:
            sys.exit((soak.folder / "log").read_text())
        try:
            with socket.create_connection(("127.0.0.1", soak.port), 1):
                return
        except OSError:
            time.sleep(0.5)
    sys.exit("the server does not listen")


def report(soak, arguments, memory, alive, code, verified):
    print(f"{arguments.minutes:g} minutes, {arguments.clients} clients, {sum(soak.answers.values())} requests")
    for (kind, outcome), count in sorted(soak.answers.items(), key=str):
        print(f"  {kind:<10} {outcome!s:<24} {count}")
    log = [json.loads(line) for line in (soak.folder / "log").read_text().splitlines() if line.startswith("{")]
    errors = collections.Counter(
        (line["level"], line["message"], line.get("event", "")) for line in log if line["level"] in ("warn", "error")
    )
    for (level, message, event), count in sorted(errors.items()):
        print(f"  log {level}: {message} {event} ×{count}")
    settled = [kibibytes for passed, kibibytes in memory if passed >= arguments.minutes * 15]
    shown = memory[:: max(1, len(memory) // 10)]
    print("resident memory, MiB: " + " ".join(f"{kibibytes / 1024:.0f}" for _, kibibytes in shown))
    growth = settled[-1] / settled[0] if settled else 1
    print(f"growth after the first quarter: ×{growth:.3f}")
    print(f"exit code {code}; verify: {(verified.stdout + verified.stderr).strip()}")
    problems = [f"{kind}: {outcome} ×{count}" for (kind, outcome), count in sorted(soak.unexplained.items(), key=str)]
    if not alive or code != 0:
        problems.append("the server did not end as it should")
    if growth > 1.1:
        problems.append("memory grows")
    if verified.returncode != 0:
        problems.append("the audit log does not verify")
    print("unexplained: " + ("; ".join(problems) or "nothing"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
