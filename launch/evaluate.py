"""Evaluate a checkpoint on held-out text: `python -m launch.evaluate --checkpoint=run:runs/demo`.

Prints one JSON object. BERT: masked-word loss, perplexity and accuracy, next-sentence accuracy. ELMo: perplexities of
the forward and the backward direction over the whole vocabulary, and of their mean loss; with --ngrams=1,2,5 those of
the training split's word n-grams beside them. Both: what token frequencies alone reach on the same places.
"""

import json
import sys

from absl import app, flags, logging

from bert_jax.config import choose, parse_flags
from bert_jax.training import elmo_pretraining, pretraining
from bert_jax.training.checkpoint import CheckpointError, load_config
from bert_jax.training.evaluation import EvalConfig

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "run:DIR, run:DIR@STEP or run:DIR@best.", required=True)
CORPUS = flags.DEFINE_string("corpus", "", "A prepared corpus of the same vocabulary; default: that of the run.")
INSTANCES = flags.DEFINE_string("instances", "", "An instance set of the corpus; default: that of the run.")
MAX_ROWS = flags.DEFINE_integer("max_rows", 0, "Only the first rows of the validation split; 0 = all.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Rows at a time.")
NGRAMS = flags.DEFINE_list("ngrams", [], "ELMo: also the perplexity of n-grams of these orders, such as 1,2,5.")
NGRAM_ROWS = flags.DEFINE_integer("ngram_rows", 0, "The first train rows that n-grams count; 0 = all.", lower_bound=0)

# By the run's config.family.
EVALUATIONS = {"bert": pretraining.evaluate_checkpoint, "elmo": elmo_pretraining.evaluate_checkpoint}


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # orbax warns of a file that it does not need
    try:
        config = EvalConfig(every_steps=0, max_rows=MAX_ROWS.value, batch_size=BATCH_SIZE.value)
        saved = load_config(CHECKPOINT.value)
        family = choose(f"the family of {CHECKPOINT.value}", saved.get("family", "bert"), EVALUATIONS)
        orders = ngram_orders(family)
        if not ((CORPUS.value or saved["data"]["corpus"]) and (INSTANCES.value or saved["data"]["instances"])):
            raise ValueError(f"{CHECKPOINT.value} was converted and has no corpus here; give --corpus and --instances")
        row = EVALUATIONS[family](CHECKPOINT.value, CORPUS.value, config, INSTANCES.value)
        if orders:
            rows = MAX_ROWS.value, NGRAM_ROWS.value
            row |= elmo_pretraining.evaluate_ngrams(row["corpus"], row["instances"], orders, *rows)
        print(json.dumps(row, indent=2))
    except (ValueError, FileNotFoundError, CheckpointError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def ngram_orders(family: str) -> list[int]:
    """Return the numbers of --ngrams.

    Raises:
        ValueError: they are none, or the family has no stream of words.
    """
    given = ",".join(NGRAMS.value)
    if given and family != elmo_pretraining.FAMILY:
        raise ValueError(f"--ngrams is {given}, but {CHECKPOINT.value} predicts no stream of words; leave it out")
    if not all(order.isdecimal() and int(order) for order in NGRAMS.value):
        raise ValueError(f"--ngrams is {given}; it takes numbers of 1 or more with commas between, such as 1,2,5")
    return [int(order) for order in NGRAMS.value]


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
