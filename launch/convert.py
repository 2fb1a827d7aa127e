"""Convert a checkpoint from one system to another, and say what became of every tensor.

    python -m launch.convert --from=hf:DIR --to=run:runs/bert-base
    python -m launch.convert --from=hf:google-bert/bert-base-uncased@main --to=run:runs/bert-base
    python -m launch.convert --from=google:uncased_L-12_H-768_A-12/bert_model.ckpt --to=run:runs/bert-base
    python -m launch.convert --from=run:runs/base-2@best --to=hf:bert-mine --check
    python -m launch.convert --from=elmo:elmo_2x1024_128_2048cnn_1xhighway --to=run:runs/elmo-small
    python -m launch.convert --from=run:runs/elmo@best --to=elmo:elmo-mine

Both sides are addresses: run:DIR[@STEP|@best], hf:DIR, hf:OWNER/NAME@REVISION, google:PREFIX, elmo:DIR (options.json
and weights.hdf5 of bilm-tf and AllenNLP, which have no softmax); run:DIR, hf:DIR and elmo:DIR are written. A converted
run has parameters only: --config.init_from takes it, it is not resumed. transformers loads what is written to hf: by
the class that its config.json names. --check computes the outputs on both sides and prints the largest difference; it
needs PyTorch and transformers, here or in the Python that the environment variable BERT_JAX_TORCH_PYTHON names.
"""

import sys
from pathlib import Path

from absl import app, flags, logging

from bert_jax.config import parse_flags
from bert_jax.interop.weights import Beside
from bert_jax.training.checkpoint import CheckpointError
from bert_jax.training.conversion import convert
from bert_jax.training.workdir import WorkdirInUseError

_FROM = flags.DEFINE_string("from", None, "Address of the checkpoint to convert.", required=True)
_TO = flags.DEFINE_string("to", None, "run:DIR, hf:DIR or elmo:DIR, which holds nothing yet.", required=True)
_VOCAB = flags.DEFINE_string("vocab", None, "The model's vocab.txt, where none is beside the checkpoint.")
_CONFIG = flags.DEFINE_string("bert_config", None, "The model's bert_config.json, where none is beside it.")
_LOWER = flags.DEFINE_bool("do_lower_case", None, "The vocabulary's casing, where no file says it.")
_CHECK = flags.DEFINE_bool("check", False, "Compare the outputs with those of transformers.")


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # orbax tells each of its steps
    vocab, config = (Path(value) if value else None for value in (_VOCAB.value, _CONFIG.value))
    try:
        done = convert(_FROM.value, _TO.value, Beside(vocab, config, _LOWER.value), _CHECK.value)
    except (ValueError, FileNotFoundError, FileExistsError, CheckpointError, WorkdirInUseError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1
    print("\n".join(done.lines()))
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
