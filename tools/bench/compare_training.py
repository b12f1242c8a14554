"""`eulalia bench training` beside PyTorch, in one run: prints medians, best rounds and ratios as a table.

    python tools/bench/compare_training.py target/release/eulalia [--rounds 3] [--threads 2] [--configs S,M,MOE] [--json FILE]

Each measurement is a process of its own with few steps, and the programs take turns, so that what else the machine does
meets all of them alike: M of ours, M of PyTorch eager, M of PyTorch compiled, …, and again. PyTorch is measured eager and
compiled, each with glibc's default malloc and with one that keeps its pages; eulalia as it is. Run it with the Python that
has the packages of requirements.txt. The first round compiles PyTorch's kernels, which its cache keeps for the rounds after.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

PEERS = [(mode, malloc) for mode in ("eager", "compiled") for malloc in ("default", "retain")]
MALLOC = {"default": "default malloc", "retain": "page-retaining malloc"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eulalia", type=pathlib.Path, help="the program, built with --release")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="measured steps of a process (two more warm it up)")
    parser.add_argument("--configs", default="S,M,MOE", help="of S, M, MOE, separated by commas")
    parser.add_argument("--without-pytorch", action="store_true", help="only eulalia: MOE against M, and scaling")
    parser.add_argument("--json", type=pathlib.Path, help="also write every measurement to this file")
    arguments = parser.parse_args()
    configs = arguments.configs.split(",")
    if unknown := set(configs) - {"S", "M", "MOE"}:
        parser.error(f"--configs {arguments.configs}: expected S, M, MOE, found {', '.join(sorted(unknown))}")

    began = time.monotonic()
    plan = tasks(arguments, configs)
    results = {key: [] for key, _ in plan}
    for number in range(1, arguments.rounds + 1):
        for key, command in plan:
            result = measure(command)
            results[key].append(result)
            line = f"round {number}/{arguments.rounds}  {name(key):44} {result['tokens_per_second']:8.0f} tokens/s"
            print(line, file=sys.stderr, flush=True)
    if arguments.json:
        rows = [{"name": name(key), "rounds": rounds} for key, rounds in results.items()]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    report(results, configs, arguments.threads)
    print(f"\n{arguments.rounds} rounds of {arguments.steps} steps in {(time.monotonic() - began) / 60:.1f} minutes")
    return 0


def tasks(arguments, configs):
    """What a round measures, in order: (config, program, variant, threads) and its command line."""
    plan = []
    script = pathlib.Path(__file__).with_name("training.py")
    for config in configs:
        plan.append(((config, "eulalia", "", arguments.threads), ours(arguments, config, arguments.threads)))
        if config == "MOE" or arguments.without_pytorch:
            continue
        for mode, malloc in PEERS:
            command = [
                sys.executable, script, "--config", config, "--mode", mode, "--malloc", malloc,
                "--threads", str(arguments.threads), "--steps", str(arguments.steps),
            ]
            plan.append(((config, "PyTorch", f"{mode}, {MALLOC[malloc]}", arguments.threads), command))
    if "M" in configs and arguments.threads > 1:
        plan.append((("M", "eulalia", "", 1), ours(arguments, "M", 1)))
    return plan


def ours(arguments, config, threads):
    return [
        arguments.eulalia.resolve(), "bench", "training", "--config", config,
        "--threads", str(threads), "--steps", str(arguments.steps), "--json",
    ]


def measure(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def name(key):
    config, program, variant, threads = key
    return f"{config} {program}" + (f" {variant}" if variant else "") + (f", {threads} thread" + "s" * (threads > 1))


def median(rounds, field):
    values = [result[field] for result in rounds if result.get(field) is not None]
    return statistics.median(values) if values else None


def report(results, configs, threads):
    head = ["", "tokens/s", "best", "useful GFLOP/s", "ceiling", "share", "peak memory"]
    rows = []
    for key, rounds in results.items():
        ceiling, share = median(rounds, "gemm_ceiling_gflops"), median(rounds, "share")
        rows.append([
            name(key),
            f"{median(rounds, 'tokens_per_second'):,.0f}",
            f"{max(result['tokens_per_second'] for result in rounds):,.0f}",
            f"{median(rounds, 'useful_gflops'):.0f}",
            f"{ceiling:.0f}" if ceiling else "",
            f"{share:.2f}" if share else "",
            f"{median(rounds, 'peak_memory_bytes') / 1e9:.2f} GB",
        ])
    print_table(head, rows)

    def speed(key, best):
        values = [result["tokens_per_second"] for result in results[key]]
        return max(values) if best else statistics.median(values)

    rows = []
    for config in configs:
        peers = [key for key in results if key[0] == config and key[1] == "PyTorch"]
        if not peers:
            continue
        mine = (config, "eulalia", "", threads)
        ratios = []
        for best in (False, True):
            fastest = max(peers, key=lambda key: speed(key, best))
            ratios.append(f"{speed(mine, best) / speed(fastest, best):.2f}")
        fastest = max(peers, key=lambda key: speed(key, False))
        rows.append([f"{config}: eulalia / fastest PyTorch ({fastest[2]}), tokens/s", *ratios, {"S": "≥ 1.2", "M": "≥ 1.1"}[config]])
        compiled = [median(results[key], "peak_memory_bytes") for key in peers if key[2].startswith("compiled")]
        ratio = median(results[mine], "peak_memory_bytes") / min(compiled)
        rows.append([f"{config}: eulalia / PyTorch compiled, peak memory", f"{ratio:.2f}", "", "≤ 0.7" if config == "M" else ""])
    dense, experts, alone = ("M", "eulalia", "", threads), ("MOE", "eulalia", "", threads), ("M", "eulalia", "", 1)
    if dense in results:
        share = median(results[dense], "share")
        rows.append(["M: useful GFLOP/s / ceiling of the matrix products", f"{share:.2f}", "", "≥ 0.85"])
    if dense in results and experts in results:
        ratios = [f"{speed(experts, best) / speed(dense, best):.2f}" for best in (False, True)]
        rows.append(["MOE / M, tokens/s", *ratios, "≥ 0.8"])
    if dense in results and alone in results and threads > 1:
        ratios = [f"{speed(dense, best) / speed(alone, best):.2f}" for best in (False, True)]
        rows.append([f"M: {threads} threads / 1 thread, tokens/s", *ratios, "≥ 1.85" if threads == 2 else ""])
    print()
    print_table(["ratio", "of medians", "of best rounds", "target"], rows)


def print_table(head, rows):
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    sys.exit(main())
