//! Stage 5: supervised tuning with LoRA adapters.
