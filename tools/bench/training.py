"""Full training steps of a plain Llama-shaped model in PyTorch: the peer of `eulalia bench training`.

    python tools/bench/training.py --config S|M [--mode eager|compiled] [--malloc default|retain] [--threads N] [--steps N]

RMSNorm, rotary positions, causal attention (scaled_dot_product_attention), SwiGLU, tied embedding, f32; a step is forward,
backward, clipping of the global norm, fused AdamW. Prints one JSON object: the median of the steps after the warm-up, the
peak of resident memory and the number of parameters. `--malloc retain` tells glibc to keep the pages that it was given,
which is worth a tenth of PyTorch's speed on a CPU; glibc reads it at start, so the script starts itself again with it.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import sys
import time

# What the shapes are, so that both programs measure the same arithmetic: width, layers, heads, feed-forward width,
# vocabulary, sequences of a step, tokens of a sequence.
SHAPES = {
    "S": (256, 6, 4, 768, 16_384, 8, 256),
    "M": (512, 8, 8, 1_536, 32_768, 4, 512),
}

RETAIN = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=sorted(SHAPES), default="M")
    parser.add_argument("--mode", choices=["eager", "compiled"], default="eager")
    parser.add_argument("--malloc", choices=["default", "retain"], default="default")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2)
    arguments = parser.parse_args()

    wanted = RETAIN if arguments.malloc == "retain" else {}
    environment = {key: value for key, value in os.environ.items() if key not in RETAIN}
    environment |= wanted | {"OMP_NUM_THREADS": str(arguments.threads)}
    if any(os.environ.get(key) != environment.get(key) for key in [*RETAIN, "OMP_NUM_THREADS"]):
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    print(json.dumps(measure(arguments)))


def measure(arguments: argparse.Namespace) -> dict:
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    width, layers, _, _, vocabulary, sequences, length = SHAPES[arguments.config]
    model = build(torch, SHAPES[arguments.config])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    decayed = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    rest = [parameter for parameter in model.parameters() if parameter.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True,
    )
    forward = torch.compile(model) if arguments.mode == "compiled" else model
    text = torch.randint(0, vocabulary, (sequences, length + 1))
    tokens, targets = text[:, :-1].contiguous(), text[:, 1:].contiguous()

    seconds = []
    for step in range(arguments.warm_up + arguments.steps):
        if step == arguments.warm_up:
            forget_peak()
        begin = time.perf_counter()
        loss = forward(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if step >= arguments.warm_up:
            seconds.append(time.perf_counter() - begin)
        assert math.isfinite(value), value

    median = statistics.median(seconds)
    tokens_per_second = sequences * length / median
    operations = tokens_per_second * (6 * parameters + 6 * layers * length * width)
    return {
        "program": f"PyTorch {torch.__version__.split('+')[0]} {arguments.mode}",
        "config": arguments.config,
        "mode": arguments.mode,
        "malloc": arguments.malloc,
        "threads": arguments.threads,
        "parameters": parameters,
        "tokens_per_step": sequences * length,
        "steps": arguments.steps,
        "seconds_per_step": median,
        "tokens_per_second": tokens_per_second,
        "useful_gflops": operations / 1e9,
        "peak_memory_bytes": peak(),
        "last_loss": value,
    }


def build(torch, shape):
    """The model, as a module that takes tokens and targets [sequences, length] and gives the mean loss."""
    nn, functional = torch.nn, torch.nn.functional
    width, layers, heads, wide, vocabulary, _, length = shape
    head = width // heads

    frequencies = 1.0 / 10_000.0 ** (torch.arange(0, head, 2).float() / head)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    angles = torch.cat((angles, angles), -1)

    def rotate(x, cosine, sine):
        left, right = x.chunk(2, -1)
        return x * cosine + torch.cat((-right, left), -1) * sine

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.first_norm = nn.RMSNorm(width, eps=1e-6)
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.output = nn.Linear(width, width, bias=False)
            self.second_norm = nn.RMSNorm(width, eps=1e-6)
            self.gate_up = nn.Linear(width, 2 * wide, bias=False)
            self.down = nn.Linear(wide, width, bias=False)

        def forward(self, x, cosine, sine):
            batch, time_steps, _ = x.shape
            qkv = self.qkv(self.first_norm(x)).view(batch, time_steps, 3, heads, head)
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
            q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.output(attended.transpose(1, 2).reshape(batch, time_steps, width))
            gate, up = self.gate_up(self.second_norm(x)).chunk(2, -1)
            return x + self.down(functional.silu(gate) * up)

    class Llama(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.layers = nn.ModuleList(Layer() for _ in range(layers))
            self.norm = nn.RMSNorm(width, eps=1e-6)
            self.register_buffer("cosine", angles.cos(), persistent=False)
            self.register_buffer("sine", angles.sin(), persistent=False)
            for parameter in self.parameters():
                if parameter.dim() == 2:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, tokens, targets):
            x = self.embedding(tokens)
            for layer in self.layers:
                x = layer(x, self.cosine, self.sine)
            logits = functional.linear(self.norm(x), self.embedding.weight)
            return functional.cross_entropy(logits.view(-1, vocabulary), targets.view(-1))

    return Llama()


def forget_peak() -> None:
    """Compiling takes memory that the steps do not: the peak is counted from here on."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak() -> int:
    """Highest resident memory since `forget_peak`, bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status: expected a line VmHWM; this benchmark needs Linux")


if __name__ == "__main__":
    main()
