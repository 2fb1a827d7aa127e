"""Pretrain, fine-tune and study BERT and ELMo with JAX/Flax."""
