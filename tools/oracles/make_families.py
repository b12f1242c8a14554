"""Writes the golden numbers of `crates/model/tests/golden/families/`: for one tiny random model per family, its
configuration, its weights, some tokens and their logits, as transformers computes them in f32.

Every tensor is drawn anew: norms away from 1, biases and router corrections away from 0, matrices wide enough that
attention is peaked. Sequences are longer than the sliding windows and than the original length of scaled RoPE. Weights
are kept as BF16, which is exact here: they are rounded before the logits are computed.
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden/families"
TOKENS = 40
SHAPE = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1, pad_token_id=2, tie_word_embeddings=False,
)
HEADS = dict(head_dim=12)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
YARN = dict(
    rope_type="yarn", rope_theta=50.0, factor=4.0, beta_fast=1.0, beta_slow=0.25, original_max_position_embeddings=16,
)
DEEPSEEK_EXPERTS = dict(
    n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=16, n_shared_experts=2, first_k_dense_replace=1,
    n_group=4, topk_group=2, norm_topk_prob=True, routed_scaling_factor=1.5,
)
LATENT = dict(kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=12, v_head_dim=10, num_key_value_heads=4)

# name of the folder: (family, what is set besides SHAPE)
FAMILIES = {
    "llama": ("Llama", HEADS | dict(attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3)),
    "llama_linear": (
        "Llama", HEADS | dict(rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0), tie_word_embeddings=True)
    ),
    "mistral": ("Mistral", HEADS | dict(sliding_window=7)),
    "ministral": (
        "Ministral", HEADS | dict(sliding_window=7, layer_types=["sliding_attention", "full_attention"])
    ),
    "ministral3": (
        "Ministral3",
        HEADS | dict(
            rope_parameters=YARN | dict(mscale=1.0, mscale_all_dim=0.7, llama_4_scaling_beta=0.3, max_position_embeddings=128)
        ),
    ),
    "mixtral": ("Mixtral", HEADS | dict(intermediate_size=24, num_local_experts=6, num_experts_per_tok=2, sliding_window=20)),
    "qwen2": (
        "Qwen2", dict(use_sliding_window=True, sliding_window=9, max_window_layers=1, rope_parameters=YARN),
    ),
    "qwen3": ("Qwen3", HEADS | dict(attention_bias=True, rope_parameters=YARN | dict(truncate=False))),
    "qwen3_moe": (
        "Qwen3Moe",
        HEADS | dict(
            num_hidden_layers=3, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=3, norm_topk_prob=True,
            mlp_only_layers=[1],
        ),
    ),
    "qwen3_moe_unnormed": (
        "Qwen3Moe",
        HEADS | dict(
            moe_intermediate_size=16, num_experts=8, num_experts_per_tok=3, norm_topk_prob=False, decoder_sparse_step=2,
        ),
    ),
    "apertus": ("Apertus", dict(hidden_act="xielu", rope_parameters=LLAMA3)),
    "olmo2": ("Olmo2", dict()),
    "olmo3": (
        "Olmo3",
        dict(
            num_hidden_layers=4, sliding_window=6,
            rope_parameters=dict(
                full_attention=YARN | dict(attention_factor=1.2),
                sliding_attention=dict(rope_type="default", rope_theta=500.0),
            ),
        ),
    ),
    "gemma2": (
        "Gemma2",
        HEADS | dict(
            sliding_window=8, query_pre_attn_scalar=20, attn_logit_softcapping=5.0, final_logit_softcapping=9.0,
            tie_word_embeddings=True,
        ),
    ),
    "gemma3": (
        "Gemma3",
        HEADS | dict(
            num_hidden_layers=3, sliding_window=8, query_pre_attn_scalar=9, tie_word_embeddings=True,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
            rope_parameters=dict(
                full_attention=dict(rope_type="linear", rope_theta=900.0, factor=8.0),
                sliding_attention=dict(rope_type="default", rope_theta=50.0),
            ),
        ),
    ),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=3, no_rope_layer_interval=2, tie_word_embeddings=True)),
    "dots1": (
        "Dots1",
        HEADS | DEEPSEEK_EXPERTS | dict(
            num_hidden_layers=3, attention_bias=True, sliding_window=11,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
        ),
    ),
    "deepseek_v3": (
        "DeepseekV3",
        DEEPSEEK_EXPERTS | LATENT | dict(
            q_lora_rank=14, num_mtp_layers=0, rope_parameters=YARN | dict(mscale=1.0, mscale_all_dim=0.7),
        ),
    ),
    "deepseek_v3_plain": (
        "DeepseekV3", DEEPSEEK_EXPERTS | LATENT | dict(q_lora_rank=None, rope_interleave=False, num_mtp_layers=0)
    ),
}


# Of models of pictures and text, the text part: the class, its text part's family, and the smallest part for pictures.
WITH_PICTURES = {
    "gemma3_with_pictures": ("Gemma3", "gemma3", "Gemma3TextConfig", dict(
        vision_config=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4,
            vision_use_head=False,
        ),
        mm_tokens_per_image=4, image_token_index=95, boi_token_index=94, eoi_token_index=93,
    )),
    "mistral3_with_pictures": ("Mistral3", "ministral3", "Ministral3Config", dict(
        vision_config=dict(
            model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8,
            image_size=8, patch_size=4,
        ),
        image_token_index=95, spatial_merge_size=1, vision_feature_layer=-1,
    )),
}


def randomise(model, from_zero):
    generator = torch.Generator().manual_seed(21)
    named = list(model.named_parameters()) + [
        (name, buffer) for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")
    ]
    with torch.no_grad():
        for name, parameter in named:
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                value = (0.0 if from_zero else 1.0) + 0.3 * noise
            elif name.endswith("e_score_correction_bias"):
                value = 0.1 * noise
            elif name.endswith("bias") or "alpha" in name:
                value = 0.3 * noise
            else:
                value = 0.25 * noise
            parameter.copy_(value.to(torch.bfloat16).float())


def write(folder_name, family, settings):
    prefix = "Gemma3Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{prefix}Config")(**SHAPE | settings, attn_implementation="eager")
    config._experts_implementation = "eager"
    save(folder_name, getattr(transformers, f"{family}ForCausalLM")(config), config.vocab_size, family)


def write_with_pictures(folder_name, family, text, text_class, settings):
    text_config = getattr(transformers, text_class)(**SHAPE | FAMILIES[text][1])
    config = getattr(transformers, f"{family}Config")(
        text_config=text_config, tie_word_embeddings=text_config.tie_word_embeddings, attn_implementation="eager", **settings
    )
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    save(folder_name, model, 90, family)


def save(folder_name, model, tokens_below, family):
    model = model.float().eval()
    randomise(model, from_zero=family.startswith("Gemma"))
    tokens = torch.randint(0, tokens_below, (TOKENS,), generator=torch.Generator().manual_seed(22))
    with torch.no_grad():
        logits = model(input_ids=tokens[None], use_cache=False).logits[0]

    folder = GOLDEN / folder_name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    weights = load_file(folder / "model.safetensors")
    halves = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    # β and ε of xIELU are not ours to draw, and not exact as halves
    exact = {name: halves[name] if torch.equal(halves[name].float(), weights[name].float()) else weights[name] for name in weights}
    save_file(exact, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"logits": logits.float().contiguous()}, folder / "logits.safetensors")
    (folder / "tokens.json").write_text(json.dumps(tokens.tolist()) + "\n")
    print(folder_name, sum(path.stat().st_size for path in folder.iterdir()), "bytes")


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for name, (family, settings) in FAMILIES.items():
        if not wanted or name in wanted:
            write(name, family, settings)
    for name, arguments in WITH_PICTURES.items():
        if not wanted or name in wanted:
            write_with_pictures(name, *arguments)
