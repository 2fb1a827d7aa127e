"""Compute with PyTorch and Hugging Face's BertForPreTraining what our model is compared with.

Run in an environment with torch, transformers and numpy, from anywhere:
    python tests/parity/make_torch_golden.py [OUTPUT.npz]
Everything is float64: PyTorch's rounding shall not be part of the comparison, and any machine makes the same file.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tiny_bert  # pyright: ignore[reportMissingImports]  # stands beside this script
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

GOLDEN = Path(__file__).parent / "golden" / "bert_pretraining.npz"


def make_model() -> Any:
    """Return Hugging Face's model with the shared weights and without dropout."""
    config = transformers.BertConfig(
        **tiny_bert.SIZES, hidden_act="gelu", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    config._attn_implementation = "eager"
    model = transformers.BertForPreTraining(config).double().train()
    weights = tiny_bert.weights()
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(weights), set(parameters) ^ set(weights)
    with torch.no_grad():
        for name, parameter in parameters.items():
            assert parameter.shape == weights[name].shape, name
            parameter.copy_(torch.from_numpy(weights[name]))
    return model


def run(model: Any, batch: dict[str, np.ndarray]) -> Any:
    """Return the model's outputs, with Hugging Face's own loss."""
    labels = np.full(batch["input_ids"].shape, -100, np.int64)
    for row, column in np.argwhere(batch["masked_lm_weights"] > 0):
        labels[row, batch["masked_lm_positions"][row, column]] = batch["masked_lm_ids"][row, column]
    inputs = {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["input_mask"],
        "token_type_ids": batch["segment_ids"],
        "labels": labels,
        "next_sentence_label": batch["next_sentence_labels"][:, 0],
    }
    tensors = {name: torch.from_numpy(values.astype(np.int64)) for name, values in inputs.items()}
    return model(**tensors, output_hidden_states=True)


def forward_and_gradient() -> dict[str, np.ndarray]:
    """Return logits, hidden states, loss and every parameter's gradient for batch 0."""
    model, batch = make_model(), tiny_bert.batch(0)
    output = run(model, batch)
    output.loss.backward()
    rows = np.arange(tiny_bert.ROWS)[:, None]
    found = {
        "loss": output.loss,
        "masked_lm_logits": output.prediction_logits[rows, batch["masked_lm_positions"]],
        "next_sentence_logits": output.seq_relationship_logits,
        "all_hidden": torch.stack(output.hidden_states),
    }
    arrays = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in found.items()}
    for name, parameter in model.named_parameters():
        arrays[f"gradient/{name}"] = parameter.grad.numpy().astype(np.float32)
    return arrays


def first_losses() -> np.ndarray:
    """Train with AdamW as in BERT's optimization.py, written out, and return the loss of every step."""
    model, options = make_model(), tiny_bert.OPTIMIZER
    parameters = dict(model.named_parameters())
    first = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    second = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    losses = []
    for step in range(tiny_bert.NUM_STEPS):
        model.zero_grad()
        loss = run(model, tiny_bert.batch(step % tiny_bert.NUM_BATCHES)).loss
        loss.backward()
        losses.append(loss.item())
        norm = torch.sqrt(sum((parameter.grad**2).sum() for parameter in parameters.values()))
        scale = options["clip_norm"] / torch.clamp(norm, min=options["clip_norm"])
        with torch.no_grad():
            for name, parameter in parameters.items():
                gradient = scale * parameter.grad
                first[name].mul_(options["beta1"]).add_((1 - options["beta1"]) * gradient)
                second[name].mul_(options["beta2"]).add_((1 - options["beta2"]) * gradient**2)
                update = first[name] / (torch.sqrt(second[name]) + options["epsilon"])
                if "LayerNorm" not in name and "bias" not in name:
                    update = update + options["weight_decay"] * parameter
                parameter.sub_(tiny_bert.learning_rate(step) * update)
    return np.array(losses)


def main() -> None:
    """Write the golden file."""
    torch.set_num_threads(1)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    arrays: dict[str, Any] = forward_and_gradient() | {"losses": first_losses()}
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)
    losses = arrays["losses"]
    print(f"{path}: {path.stat().st_size:,} bytes; loss {losses[0]:.4f} → {losses[-1]:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
