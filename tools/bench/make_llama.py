"""Writes a Llama-style model with random weights in Hugging Face's layout: the 436M shape that inference is measured on.

    python tools/bench/make_llama.py FOLDER [--positions 8192]

Needs torch, transformers and tokenizers. The tokenizer is a byte-level BPE with nothing learned, enough to open the folder.
"""

import argparse
import pathlib

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--positions", type=int, default=8192)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=1280,
        num_hidden_layers=20,
        num_attention_heads=20,
        num_key_value_heads=4,
        intermediate_size=3584,
        vocab_size=32000,
        max_position_embeddings=arguments.positions,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        dtype="float32",
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(arguments.folder, max_shard_size="10GB")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, **{character: index + 1 for index, character in enumerate(alphabet)}}
    for index in range(len(vocabulary), 32000):
        vocabulary[f"<unused{index}>"] = index
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    fast.save_pretrained(arguments.folder)


main()
