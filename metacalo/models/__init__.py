"""Pure neural networks: patches, transformers, the tokenizer, the prior and the denoiser."""
