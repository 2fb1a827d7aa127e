"""Fine-tune with Hugging Face's model and torch's AdamW on batches from a file, and write the losses.

Run in an environment with torch, transformers and numpy; nothing of bert_jax is imported:
    python tests/parity/torch_finetuning.py DIR BATCHES.npz OPTIONS.json LOSSES.npy
The class is the one that DIR's config.json names. BATCHES has the arrays of every step, `7/input_ids`, by the names of
our batches; rows of weight 0 are dropped. Everything is float64: torch's rounding shall not be part of the comparison.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

NAMES = {
    "input_ids": "input_ids", "input_mask": "attention_mask", "segment_ids": "token_type_ids", "label_ids": "labels",
    "start_positions": "start_positions", "end_positions": "end_positions",
}  # fmt: skip


def load(directory: str) -> Any:
    """Return the model; `eval` switches dropout off and nothing else."""
    config = json.loads(Path(directory, "config.json").read_text(encoding="utf-8"))
    architecture = getattr(transformers, config["architectures"][0])
    return architecture.from_pretrained(directory, dtype=torch.float64).eval()


def tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the model's arguments."""
    real = batch["row_weights"] > 0
    found = {}
    for name, theirs in NAMES.items():
        if name in batch:
            values = batch[name][real]
            floating = np.issubdtype(values.dtype, np.floating)  # scores
            found[theirs] = torch.from_numpy(values.astype(np.float64 if floating else np.int64))
    if found.get("labels") is not None and found["labels"].ndim == 2:
        found["labels"][found["labels"] < 0] = -100  # tokens without a label
    return found


def make_optimizer(model: Any, options: dict[str, Any]) -> Any:
    """Return torch's AdamW, which corrects its moments, with weight decay where BERT has it."""
    plain = [p for name, p in model.named_parameters() if "bias" in name or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not ("bias" in name or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": options["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(options["beta1"], options["beta2"]), eps=options["epsilon"])


def train(model: Any, batches: Any, options: dict[str, Any]) -> list[float]:
    """Return the loss of every step."""
    optimizer, losses = make_optimizer(model, options), []
    peak, warmup, total = (options[name] for name in ("peak_learning_rate", "warmup_steps", "total_steps"))
    for step in itertools.count():
        batch = {name.partition("/")[2]: batches[name] for name in batches.files if name.startswith(f"{step}/")}
        if not batch:
            return losses
        for group in optimizer.param_groups:  # optimization.py of google-research/bert: decay counted from step 0
            group["lr"] = peak * step / warmup if step < warmup else peak * (1.0 - step / total)
        optimizer.zero_grad()
        loss = model(**tensors(batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(directory: str, batches: str, options: str, losses: str) -> None:
    """Train and write."""
    with np.load(batches) as arrays:
        found = train(load(directory), arrays, json.loads(Path(options).read_text(encoding="utf-8")))
    np.save(losses, np.array(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
