"""Load a directory with Hugging Face's transformers and write what the model makes of some inputs.

Run in an environment with torch, transformers and numpy; nothing of bert_jax is imported:
    python bert_jax/interop/transformers_outputs.py DIR INPUTS.npz OUTPUTS.npz
INPUTS has input_ids, attention_mask and token_type_ids, int [rows, length]. The class is the one that DIR's
config.json names. Prints one JSON object: what the loading said about weights that are missing, unexpected or of
another shape, and its warnings.
"""

import json
import logging
import sys
from pathlib import Path

import numpy as np


class _Warnings(logging.Handler):
    """Keeps what is logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.messages.append(record.getMessage())


def main(directory: str, inputs: str, outputs: str) -> None:
    """Load, compute in float32, write."""
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    warnings = _Warnings()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.add_handler(warnings)
    config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    architecture = getattr(transformers, (config.get("architectures") or ["BertModel"])[0])
    model, info = architecture.from_pretrained(directory, output_loading_info=True, dtype=torch.float32)
    with np.load(inputs) as arrays, torch.no_grad():
        tensors = {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in arrays.files}
        if architecture is transformers.BertForMultipleChoice:
            tensors = {name: values[:, None] for name, values in tensors.items()}  # a row has one choice
        found = model.eval()(**tensors, output_hidden_states=True)
    arrays = {name: values.numpy() for name, values in found.items() if hasattr(values, "numpy")}
    arrays["all_hidden"] = torch.stack(found.hidden_states).numpy()
    np.savez(outputs, **arrays)
    loading = {name: sorted(map(str, names)) for name, names in info.items()}
    print(json.dumps({"architecture": architecture.__name__, **loading, "warnings": warnings.messages}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
