"""Everything once, small: text, vocabulary, pretraining, evaluation, masks filled. Four minutes on two cores.

    python -m launch.demo

It runs the three commands that it prints, and nothing else; what was done already is not done again.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import app
from etils import epath

from bert_jax.config import parse_flags
from bert_jax.training.metrics import FILE, is_eval, read_rows

WORKDIR = "runs/demo"
SENTENCES = (
    "Return a new [MASK] object.",
    "If the file does not exist, an [MASK] is raised.",
    "The default [MASK] is None.",
    "This module provides a [MASK] of functions.",
)
PREPARE = ("launch.prepare", "--config=configs/corpus.py:name=python_docs")
PRETRAIN = ("launch.pretrain", "--config=configs/bert.py:size=demo", f"--workdir={WORKDIR}")
FILL_MASK = (
    "launch.fill_mask",
    f"--checkpoint=run:{WORKDIR}",
    "--top_k=3",
    *(f"--text={sentence}" for sentence in SENTENCES),
)
NEXT = f"""What to run next
  guess more words        python -m launch.fill_mask --checkpoint=run:{WORKDIR}
  train it for longer     python -m launch.pretrain --config=configs/bert.py:size=demo --workdir={WORKDIR} \\
                            --config.train.num_steps=20000
  use your own text       python -m launch.prepare \\
                            --config=configs/corpus.py:name=text,kind=books,path=DIRECTORY,vocab_size=8000
                          python -m launch.pretrain --config=configs/bert.py:size=mini,recipe=small,preset=laptop \\
                            --config.data.corpus=data/text
  BERT-Base as published  see "Pretraining BERT" in README.md"""


def main(argv: list[str]) -> None:
    """Run the three commands and compare the result with chance."""
    if len(argv) > 1:
        raise app.UsageError("the demo takes no arguments; it prints the commands that do")
    _run("1/3  Prepare a corpus: the documentation of this Python, a vocabulary, sentence pairs", PREPARE)
    _run("2/3  Pretrain a small BERT on it: masked words and next sentences", PRETRAIN)
    evaluations = [row for row in read_rows(epath.Path(WORKDIR) / FILE) if is_eval(row)]
    _print_banner("What it learned, on modules that it never saw")
    print(summary(evaluations[-1]))
    _run("3/3  Fill masks", FILL_MASK)
    activate = Path(sys.prefix, "bin", "activate")
    if activate.exists() and "VIRTUAL_ENV" not in os.environ:
        print(f"\nFirst, once in this terminal: source {os.path.relpath(activate)}")
    print(f"\n{NEXT}")


def _run(title: str, command: tuple[str, ...]) -> None:
    """Show a command, run it, and leave with its status unless that is 0."""
    _print_banner(f"{title}\n     {shlex.join(('python', '-m', *command))}")
    with subprocess.Popen([sys.executable, "-m", *command]) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # which the command got too: it saves and ends
            status = process.wait()
    if status:
        print(f"\nthe command above ended with status {status}; the demo goes on from there when run again")
        sys.exit(status)


def summary(row: dict[str, Any]) -> str:
    """Return the held-out metrics beside what chance reaches."""
    lines = [
        ("", "this model", "without a model"),
        (
            "masked words guessed right",
            f"{row['eval/mlm_accuracy']:.1%}",
            f"{row['eval/most_frequent_token_accuracy']:.1%} (always the most frequent token)",
        ),
        (
            "perplexity of masked words",
            f"{row['eval/mlm_perplexity']:.0f}",
            f"{row['eval/unigram_perplexity']:.0f} (token frequencies)",
        ),
        ("next sentence or not", f"{row['eval/nsp_accuracy']:.1%}", "50 % (a coin)"),
    ]
    return "\n".join(f"{name:28}{ours:>12}   {chance}" for name, ours, chance in lines)


def _print_banner(text: str) -> None:
    line = "─" * 100
    print(f"\n{line}\n{text}\n{line}", flush=True)


if __name__ == "__main__":
    if not Path("configs/bert.py").exists():
        sys.exit("demo: run it in the root of the checkout, where configs/ is")
    app.run(main, flags_parser=parse_flags)
