"""Can one tenant learn by the clock what another tenant has asked? Probes a running server and prints how well it works.

    eulalia keys new --tenant a   # the victim's key
    eulalia keys new --tenant b   # the attacker's key
    python tools/bench/prompt_cache_timing.py http://127.0.0.1:8480 MODEL VICTIM_KEY ATTACKER_KEY [--probes 10000]

Before each probe the victim asks something. The attacker then asks either the very same or something else of the same
length, and takes the time until the answer begins. If the server's prompt cache were shared, the same would come sooner.
Printed is the AUC of a classifier that knows nothing but this time: 0.5 is a guess, 1.0 is certainty; and beside it, as a
control that shows that the probe can see a cache at all, the AUC where victim and attacker are one tenant. Standard
library only. Exit code 1 if the AUC is above 0.55.
"""

import argparse
import http.client
import json
import random
import sys
import time
from urllib.parse import urlsplit

# As the target says.
MOST = 0.55


class Client:
    """One connection that stays open, so that no probe pays for another's handshake."""

    def __init__(self, base: str, model: str, key: str) -> None:
        address = urlsplit(base)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(address.hostname, address.port, timeout=60)
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self.model = model

    def seconds(self, prompt: str) -> float:
        body = json.dumps({"model": self.model, "prompt": prompt, "max_tokens": 1, "temperature": 0})
        for attempt in (1, 2):
            try:
                began = time.perf_counter()
                self.connection.request("POST", "/v1/completions", body, self.headers)
                answer = self.connection.getresponse()
                seconds = time.perf_counter() - began
                text = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                # The server closes connections that were idle, and this machine may have been busy for so long.
                if attempt == 2:
                    raise
                self.connection.close()
        if answer.status != 200:
            sys.exit(f"{answer.status}: {text.decode()}")
        return seconds


def prompt(draw: random.Random, characters: int) -> str:
    words = []
    while sum(map(len, words)) + len(words) < characters:
        words.append("".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.randint(3, 9))))
    return " ".join(words)[:characters]


def auc(hits: list[float], misses: list[float]) -> float:
    """The chance that a hit came sooner than a miss; ties count half."""
    ranked = sorted([(seconds, 1) for seconds in hits] + [(seconds, 0) for seconds in misses])
    total, place = 0.0, 0
    while place < len(ranked):
        end = place
        while end < len(ranked) and ranked[end][0] == ranked[place][0]:
            end += 1
        total += sum(label for _, label in ranked[place:end]) * (place + end + 1) / 2
        place = end
    sooner = total - len(hits) * (len(hits) + 1) / 2
    return 1 - sooner / (len(hits) * len(misses))


def attack(victim: Client, attacker: Client, probes: int, characters: int, draw: random.Random) -> float:
    hits, misses = [], []
    for number in range(probes):
        asked, other = prompt(draw, characters), prompt(draw, characters)
        victim.seconds(asked)
        if draw.random() < 0.5:
            hits.append(attacker.seconds(asked))
        else:
            misses.append(attacker.seconds(other))
        if number % 500 == 499:
            print(f"  {number + 1} of {probes}", file=sys.stderr)
    return auc(hits, misses)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("model")
    parser.add_argument("victim_key")
    parser.add_argument("attacker_key")
    parser.add_argument("--probes", type=int, default=10_000)
    parser.add_argument("--control", type=int, default=1_000, help="probes of the control")
    parser.add_argument("--characters", type=int, default=400, help="of each prompt")
    arguments = parser.parse_args()
    draw = random.Random(1)
    victim = Client(arguments.base, arguments.model, arguments.victim_key)
    attacker = Client(arguments.base, arguments.model, arguments.attacker_key)
    same = Client(arguments.base, arguments.model, arguments.victim_key)
    control = attack(victim, same, arguments.control, arguments.characters, draw)
    found = attack(victim, attacker, arguments.probes, arguments.characters, draw)
    print(f"within one tenant (control), {arguments.control} probes: AUC {control:.3f}")
    print(f"from one tenant to another, {arguments.probes} probes: AUC {found:.3f} (at most {MOST})")
    return 0 if max(found, 1 - found) <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
