"""Writes the golden numbers of `crates/model/tests/golden/`: for one tiny random model per family, its weights, logits,
loss and the loss's gradient by every parameter, as PyTorch computes them.

Default initialisation hides faults (norms are 1, attention is flat), so every tensor is drawn anew, wide enough that
attention is peaked. Two documents of different lengths run one by one: ours packs them and must get the same.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden"
SHAPE = dict(
    vocab_size=80, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=12, max_position_embeddings=128, rope_theta=5_000.0, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=0,
    attn_implementation="eager",
)
LENGTHS = [70, 23]


def randomise(model):
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1.0 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(0.25 * noise)


def write(name, config, model_class):
    model = model_class(config).eval()
    randomise(model)
    generator = torch.Generator().manual_seed(12)
    tokens = torch.randint(0, config.vocab_size, (sum(LENGTHS),), generator=generator)
    targets = torch.randint(0, config.vocab_size, (sum(LENGTHS),), generator=generator)
    logits, loss, begin = [], 0.0, 0
    for length in LENGTHS:
        document = model(input_ids=tokens[None, begin : begin + length]).logits[0]
        loss = loss + torch.nn.functional.cross_entropy(document, targets[begin : begin + length], reduction="sum")
        logits.append(document)
        begin += length
    loss.backward()

    folder = GOLDEN / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    # every fourth row of logits is enough, and a quarter of the size
    save_file({"logits": torch.cat(logits)[::4].detach().contiguous()}, folder / "logits.safetensors")
    gradients = {key: value.grad.contiguous() for key, value in model.named_parameters()}
    save_file(gradients, folder / "gradients.safetensors")
    batch = dict(tokens=tokens.tolist(), targets=targets.tolist(), lengths=LENGTHS, loss=loss.item())
    (folder / "batch.json").write_text(json.dumps(batch) + "\n")


if __name__ == "__main__":
    write("qwen3", Qwen3Config(**SHAPE, tie_word_embeddings=True), Qwen3ForCausalLM)
    write("qwen2", Qwen2Config(**SHAPE, tie_word_embeddings=True), Qwen2ForCausalLM)
    write("llama", LlamaConfig(**SHAPE, tie_word_embeddings=False), LlamaForCausalLM)
