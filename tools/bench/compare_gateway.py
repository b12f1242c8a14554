"""The gateway beside LiteLLM's proxy: both before the same stub engine, taking turns, medians and ratios.

    python tools/bench/compare_gateway.py target/release/examples/stub_engine [--rounds 3] [--seconds 5]

Run it with the Python whose `litellm` (requirements-gateway.txt) is to be compared. Measured are

- streams: 32 at once of 32 events, 20 ms apart. The engine writes into each event when it was sent; the delay is how long
  the event was on its way. The added latency is the delay through a gateway less the delay of the engine called directly.
- requests: small answers that are no streams, as many as go through on 32 connections.

The engine, the load and this script share the machine with the gateways.
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

MODEL = "stub"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stub", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of requests, each time")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--litellm-workers", type=int, default=2, help="its processes, as many as cores")
    parser.add_argument("--without-litellm", action="store_true")
    parser.add_argument("--json", action="store_true", help="print all figures as one line of JSON besides")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return compare(arguments, pathlib.Path(folder))


def compare(arguments: argparse.Namespace, folder: pathlib.Path) -> int:
    stub, processes, targets = arguments.stub.resolve(), [], {}
    try:
        engine = free_port()
        processes.append(start([stub, "serve", str(engine)], folder / "engine.log"))
        wait_for(engine)
        targets["direct"] = (f"127.0.0.1:{engine}", "none")
        targets["eulalia"] = gateway(stub, engine, folder, processes)
        if not arguments.without_litellm:
            targets["litellm"] = litellm(engine, folder, processes, arguments.litellm_workers)
        figures: dict[str, list[dict]] = {name: [] for name in targets}
        for target in targets.values():
            load(stub, "requests", target, arguments.connections, 1)  # warm
        for _ in range(arguments.rounds):
            for name, target in targets.items():
                streams = load(stub, "streams", target, arguments.connections, 2)
                requests = load(stub, "requests", target, arguments.connections, arguments.seconds)
                figures[name].append({"streams": streams, "requests": requests})
        report(figures)
        if arguments.json:
            print(json.dumps(figures))
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
    return 0


def start(command: list, log: pathlib.Path, **options) -> subprocess.Popen:
    with open(log, "wb") as output:
        return subprocess.Popen([str(part) for part in command], stdout=options.pop("stdout", output), stderr=output, **options)


def gateway(stub: pathlib.Path, engine: int, folder: pathlib.Path, processes: list) -> tuple[str, str]:
    settings = folder / "gateway.toml"
    settings.write_text(
        f'state = "state"\naddress = "127.0.0.1:0"\n[[upstreams]]\nname = "stub"\nurl = "http://127.0.0.1:{engine}/v1"\n'
        f'models = {{ "{MODEL}" = "stub" }}\nmaximum_concurrency = 256\n'
    )
    process = start([stub, "gateway", settings], folder / "gateway.log", stdout=subprocess.PIPE)
    processes.append(process)
    said = json.loads(process.stdout.readline())
    return said["address"], said["key"]


def litellm(engine: int, folder: pathlib.Path, processes: list, workers: int) -> tuple[str, str]:
    config, port = folder / "litellm.yaml", free_port()
    config.write_text(
        f"model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/stub\n"
        f"      api_base: http://127.0.0.1:{engine}/v1\n      api_key: none\n"
        "general_settings:\n  master_key: sk-bench\n"
        "litellm_settings:\n  telemetry: false\n  num_retries: 0\n"
    )
    program = pathlib.Path(sys.executable).parent / "litellm"
    command = [program, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", str(workers)]
    environment = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    processes.append(start(command, folder / "litellm.log", env=environment, cwd=folder))
    wait_for(port, 180)
    return f"127.0.0.1:{port}", "sk-bench"


def load(stub: pathlib.Path, kind: str, target: tuple[str, str], connections: int, amount: float) -> dict:
    command = [stub, kind, *target, MODEL, str(connections), str(amount)]
    return json.loads(subprocess.run([str(part) for part in command], check=True, capture_output=True).stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise TimeoutError(f"nothing listens on port {port}")
            time.sleep(0.2)


def report(figures: dict[str, list[dict]]) -> None:
    def median(name: str, *path: str) -> float:
        values = []
        for round_ in figures[name]:
            value = round_
            for part in path:
                value = value[part]
            values.append(float(value if value is not None else "nan"))
        return statistics.median(values)

    rows = [("", "event p50", "event p99", "first p50", "added p50", "added p99", "requests/s", "failed")]
    added = {}
    for name in figures:
        p50, p99 = (median(name, "streams", "event_delay_us", share) / 1000 for share in ("p50", "p99"))
        added[name] = tuple(
            statistics.median(
                (mine["streams"]["event_delay_us"][share] - direct["streams"]["event_delay_us"][share]) / 1000
                for mine, direct in zip(figures[name], figures["direct"])
            )
            for share in ("p50", "p99")
        )
        first = median(name, "streams", "first_event_us", "p50") / 1000
        rate = median(name, "requests", "requests_per_second")
        failed = sum(round_[kind]["failed"] for round_ in figures[name] for kind in ("streams", "requests"))
        rows.append((name, *(f"{value:.2f} ms" for value in (p50, p99, first, *added[name])), f"{rate:,.0f}", str(failed)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) if not number else cell.rjust(width) for number, (cell, width) in enumerate(zip(row, widths))))
    if "litellm" in figures:
        ratio = median("eulalia", "requests", "requests_per_second") / median("litellm", "requests", "requests_per_second")
        shares = [added["eulalia"][share] / added["litellm"][share] for share in (0, 1)]
        print(f"requests: {ratio:.1f} times LiteLLM; added latency: p50 {shares[0]:.3f}, p99 {shares[1]:.3f} of LiteLLM's")


if __name__ == "__main__":
    sys.exit(main())
