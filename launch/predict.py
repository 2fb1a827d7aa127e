r"""Predict with a fine-tuned checkpoint: `python -m launch.predict --checkpoint=run:runs/mrpc@best --input=pairs.tsv`.

    python -m launch.predict --checkpoint=run:runs/sst2@best < reviews.txt > labels.jsonl
    python -m launch.predict --checkpoint=run:runs/ner@best --input=text.txt
    python -m launch.predict --checkpoint=run:runs/ner@best --input=eng.testb --columns
    python -m launch.predict --checkpoint=run:runs/squad@best --input=dev-v1.1.json --output=runs/squad/answers
    python -m launch.predict --checkpoint=hf:squad2_model --version_2 --input=dev-v2.0.json --output=runs/squad2/answers
    python -m launch.predict --checkpoint=run:runs/mnli@best,run:runs/mrpc@best --split=test --fill_missing \
        --submission=runs/glue.zip

Sentences: a text a line, a pair as first<TAB>second, or JSON objects with the task's columns; no csv, and of one text
no tsv. Named entities: a text a line, or files in CoNLL columns; each word gets its tag and that tag's probability.
Multiple choice: a file as those trained on. SQuAD: the official JSON; with --output the files of run_squad.py go into
that directory. That questions may have no answer is known of a run, and is said by --version_2 of a model that comes
from elsewhere. Everything else is JSON lines, in the order of the input.
"""

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from absl import app, flags, logging

from bert_jax.config import parse_flags
from bert_jax.inference.predict import PAIR_COLUMNS, Predictor, chunks, predict_test, submit
from bert_jax.tasks import multiple_choice, ner
from bert_jax.tasks.conll import read_conll
from bert_jax.tasks.sentences import read_examples, up_to_text
from bert_jax.tasks.squad_files import read_squad
from bert_jax.tasks.squad_predictions import Prediction, write_predictions
from bert_jax.tasks.tables import Row, find_file, parse_json_lines
from bert_jax.tasks.text_lines import STDIN, read_lines
from bert_jax.training.checkpoint import CheckpointError

CHECKPOINT = flags.DEFINE_list(
    "checkpoint", None, "run:DIR[@STEP|@best] or hf:DIR; several for one --submission.", required=True
)
INPUT = flags.DEFINE_string("input", STDIN, "A file, .gz too; - is the standard input.")
OUTPUT = flags.DEFINE_string("output", "", "A file to write instead of the standard output; SQuAD's directory.")
COLUMNS = flags.DEFINE_bool("columns", False, "Named entities: the input has CoNLL columns, a word a line.")
VERSION_2 = flags.DEFINE_bool(
    "version_2", None, "SQuAD: whether there may be no answer; default: as the run was trained, else false."
)
SPLIT = flags.DEFINE_enum("split", "", ["", "test"], "test: predict GLUE's official test rows, without --input.")
TASK = flags.DEFINE_string("task", "", "With --split: another task with the run's labels, such as ax.")
DIRECTORY = flags.DEFINE_string("directory", "", "With --split: of GLUE's files; default: that of the run.")
SUBMISSION = flags.DEFINE_string(
    "submission", "", "With --split: write the official files into this .zip or directory."
)
FILL_MISSING = flags.DEFINE_bool("fill_missing", False, "Fill up the .zip with placeholders for other tasks.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Rows a forward pass.")
_BATCHES_AT_ONCE = 64  # whose rows are put into buckets together


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unknown arguments: {' '.join(argv[1:])}; the text is in --input=FILE, or comes by a pipe"
        )
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # orbax warns of a file that it does not need
    try:
        if len(CHECKPOINT.value) > 1 and not SPLIT.value:
            raise ValueError("several checkpoints are for --split=test alone; give one")
        if SUBMISSION.value and not SPLIT.value:
            raise ValueError("--submission takes the predictions of --split=test; add it")
        if SPLIT.value:
            _predict_split()
        else:
            _predict_input()
    except (ValueError, FileNotFoundError, CheckpointError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _predict_input() -> None:
    typed = INPUT.value == STDIN and sys.stdin.isatty()  # someone who types waits for each answer
    predictor = Predictor.load(CHECKPOINT.value[0], 1 if typed else BATCH_SIZE.value)
    if predictor.head == "span" and OUTPUT.value:
        _write_answers(predictor)
    else:
        _write_lines(predictor, typed)
    _tell(predictor)


def _write_lines(predictor: Predictor, typed: bool) -> None:
    if predictor.head == "span":
        found = ({"id": name, **answer.as_json()} for name, answer in _answers(predictor).items())
    else:
        chunk = 1 if typed else BATCH_SIZE.value * _BATCHES_AT_ONCE
        found = {"sentences": _sentences, "tokens": _tags, "choices": _choices}[predictor.head](predictor, chunk)
    with _open_output() as file:
        for value in found:
            print(json.dumps(value, ensure_ascii=False), file=file, flush=True)


def _sentences(predictor: Predictor, chunk: int) -> Iterator[dict[str, Any]]:
    columns, suffix = predictor.text_columns, Path(INPUT.value.removesuffix(".gz")).suffix
    if suffix == ".csv" or (suffix == ".tsv" and len(columns) == 1):  # header, labels and all would pass for texts
        pair = "first<TAB>second, " * (len(columns) != 1)
        raise ValueError(f"{INPUT.value}: no {suffix[1:]} is read here; give a text a line (.txt), {pair}or JSON lines")
    lines = _lines()
    if not columns:
        begin = up_to_text(lines)
        is_pair = any("\t" in line or f'"{PAIR_COLUMNS[1]}"' in line for line in begin)
        columns, lines = PAIR_COLUMNS[: 1 + is_pair], itertools.chain(begin, lines)
    for examples in chunks(read_examples(lines, columns, _origin()), chunk):
        for example, found in zip(examples, predictor.classify(examples), strict=True):
            yield {"line": int(example.row_id), **found}


def _tags(predictor: Predictor, chunk: int) -> Iterator[dict[str, Any]]:
    if COLUMNS.value:
        if INPUT.value == STDIN:
            raise ValueError("columns are read from a file; give --input=FILE")
        file = read_conll(INPUT.value, predictor.data.get("token_column"), with_tags=False)
        documents = [[sentence.words for sentence in document] for document in file.documents]
        if not (file.has_boundaries and predictor.data.get("document_context", True)):
            documents = [[sentence] for document in documents for sentence in document]
        for sentence, found in zip(file.sentences, predictor.tag(documents), strict=True):
            yield {"line": sentence.line, **found}
        return
    split = ((number, ner.split_text(line, predictor.weights.tokenizer)) for number, line in enumerate(_lines(), 1))
    for part in chunks((item for item in split if item[1]), chunk):
        for (number, _), found in zip(part, predictor.tag([[words] for _, words in part]), strict=True):
            yield {"line": number, **found}


def _choices(predictor: Predictor, chunk: int) -> Iterator[dict[str, Any]]:
    if INPUT.value == STDIN:
        rows = (Row(cells, where) for cells, where in parse_json_lines(_lines(), _origin()))
        examples = (multiple_choice.parse_choices([row], with_labels=False)[0] for row in rows)
    else:
        trained = predictor.facts.get("choices", 0)
        examples = iter(multiple_choice.read_choices(INPUT.value, with_labels=False, trained=trained))
    for part in chunks(multiple_choice.same_choices(examples), chunk):
        for example, found in zip(part, predictor.choose(part), strict=True):
            yield {"line": int(example.where.rpartition(":")[2]), **found}


def _answers(predictor: Predictor) -> dict[str, Prediction]:
    if INPUT.value == STDIN:
        raise ValueError("a model of SQuAD reads a file of its layout; give --input=FILE.json")
    return predictor.answer(read_squad(INPUT.value, with_answers=False), VERSION_2.value)


def _write_answers(predictor: Predictor) -> None:
    found = _answers(predictor)
    version_2 = predictor.version_2 if VERSION_2.value is None else VERSION_2.value
    for path in write_predictions(OUTPUT.value, [*found], [*found.values()], version_2):
        print(f"wrote {path}", file=sys.stderr)


def _predict_split() -> None:
    found: dict[str, list[dict[str, Any]]] = {}
    for address in CHECKPOINT.value:
        predictor = Predictor.load(address, BATCH_SIZE.value)
        found |= predict_test(predictor, TASK.value, DIRECTORY.value)
        if SUBMISSION.value and not TASK.value and predictor.data["task"] == "mnli":
            try:
                found |= predict_test(predictor, "ax", DIRECTORY.value)  # whose answers are those of a model of mnli
            except FileNotFoundError as error:
                print(f"without ax: {error}", file=sys.stderr)
        _tell(predictor)
    if SUBMISSION.value:
        for line in submit(Path(SUBMISSION.value), found, FILL_MISSING.value):
            print(line, file=sys.stderr)
    if OUTPUT.value or not SUBMISSION.value:
        with _open_output() as file:
            for name, rows in found.items():
                for index, row in enumerate(rows):
                    print(json.dumps({"task": name, "index": index, **row}, ensure_ascii=False), file=file)


def _tell(predictor: Predictor) -> None:
    if predictor.note:
        print(f"{predictor.address}: {predictor.note}", file=sys.stderr)


def _lines() -> Iterator[str]:
    return read_lines(STDIN if INPUT.value == STDIN else find_file(Path(INPUT.value)))


def _origin() -> str:
    return "standard input" if INPUT.value == STDIN else INPUT.value


@contextlib.contextmanager
def _open_output() -> Iterator[IO[str]]:
    """Open --output, which stays as far as it came, or give the standard output."""
    if not OUTPUT.value:
        yield sys.stdout
        return
    if Path(OUTPUT.value).is_dir():
        raise ValueError(f"--output={OUTPUT.value} is a directory; give a file for JSON lines")
    with open(OUTPUT.value, "w", encoding="utf-8") as file:
        yield file


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
