"""Writes the golden numbers of `crates/model/tests/golden/`: for one tiny random model per family, its weights, logits,
loss and the loss's gradient by every parameter, as PyTorch computes them.

Default initialisation hides faults (norms are 1, attention is flat), so every tensor is drawn anew, wide enough that
attention is peaked. Two documents of different lengths run one by one: ours packs them and must get the same.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import (
    Dots1Config, Dots1ForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
)

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden"
SHAPE = dict(
    vocab_size=80, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=12, max_position_embeddings=128, rope_theta=5_000.0, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=0,
    attn_implementation="eager",
)
# A dense layer, then one with experts: two of the eight for each token, from one of two groups, and one for all.
MIXTURE = dict(
    intermediate_size=40, n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=12, n_shared_experts=1,
    first_k_dense_replace=1, n_group=2, topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.5, sliding_window=None,
    experts_implementation="eager",
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
        # not a parameter in torch's sense: it moves by the experts' loads, not by a gradient
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))


def per_expert(gradients):
    """Splits what transformers keeps as one tensor for all experts into the tensors that it saves."""
    result = {}
    for name, value in gradients.items():
        if name.endswith("experts.gate_up_proj") or name.endswith("experts.down_proj"):
            block, part = name.rsplit(".", 1)
            for expert, matrix in enumerate(value):
                parts = dict(zip(["gate_proj", "up_proj"], matrix.chunk(2))) if part == "gate_up_proj" else {part: matrix}
                for projection, gradient in parts.items():
                    result[f"{block}.{expert}.{projection}.weight"] = gradient.contiguous()
        else:
            result[name] = value
    return result


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
    save_file(per_expert(gradients), folder / "gradients.safetensors")
    batch = dict(tokens=tokens.tolist(), targets=targets.tolist(), lengths=LENGTHS, loss=loss.item())
    (folder / "batch.json").write_text(json.dumps(batch) + "\n")


if __name__ == "__main__":
    write("qwen3", Qwen3Config(**SHAPE, tie_word_embeddings=True), Qwen3ForCausalLM)
    write("qwen2", Qwen2Config(**SHAPE, tie_word_embeddings=True), Qwen2ForCausalLM)
    write("dots1", Dots1Config(**SHAPE | MIXTURE, tie_word_embeddings=True), Dots1ForCausalLM)
    write("llama", LlamaConfig(**SHAPE, tie_word_embeddings=False), LlamaForCausalLM)
