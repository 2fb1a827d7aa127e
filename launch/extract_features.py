r"""Write the vectors that ELMo or BERT gives words in their context: hdf5, npz, or Google's JSON lines.

    python -m launch.extract_features --checkpoint=elmo:DIR --input=sentences.txt --output=vectors.hdf5
    python -m launch.extract_features --checkpoint=run:runs/demo --input=words.txt --pretokenized --output=words.npz \
        --layers=-1,-2 --combine=concat --dtype=float16
    python -m launch.extract_features --checkpoint=run:runs/demo --input=sentences.txt --output=vectors.jsonl
    python -m launch.extract_features --checkpoint=elmo:DIR --output=vectors.hdf5 --stateful --batch_size=1 < text.txt

The input has a sentence a line: a text, which the model's own tokenizer splits, or with --pretokenized words with
spaces between them. Each word gets a vector of each layer; a word of several of BERT's pieces that of --pooling. Layer
0 is what goes into the first layer, -1 is the last; --combine=mix adds them with the --weights as they are, so of a
trained scalar mix give softmax(w), and its scale as --gamma.

hdf5 and npz: the line's number from 0 → [layers, words, width], or [words, width] of combined layers; and
sentence_to_index, a line's words → its number (the layout of bilm-tf and AllenNLP). JSON lines are those of Google's
extract_features.py: pieces with [CLS] and [SEP], pairs as `a ||| b`, at most 128 tokens unless --max_seq_length says
otherwise.

A sentence has the same vectors wherever it stands. With --stateful ELMo reads on from what it read before, as bilm-tf
(--batch_size=1) and AllenNLP (--batch_size=64) do: line i goes on from line i - batch_size.

Empty lines get an entry without words. Lines longer than BERT's positions, or for ELMo than 8,190 words, are read in
windows that overlap, so that each word has a vector with context on both sides (JSON lines: cut, as Google's; with
--stateful: refused). Of a word ELMo reads the first 48 bytes. All that is counted and said. Text that is not UTF-8 is
refused with its line, before anything is computed.
"""

import sys
import time
from collections.abc import Iterator

from absl import app, flags, logging

from bert_jax.config import parse_flags
from bert_jax.inference.bert_features import UNITS, BertFeatures
from bert_jax.inference.feature_files import JSON_LINES, FeatureFile, check_ending
from bert_jax.inference.feature_rows import POOLINGS, EncodedLine, Notes
from bert_jax.inference.features import DTYPES, FeatureExtractor, load
from bert_jax.inference.layer_choice import ALL, COMBINATIONS, LayerChoice
from bert_jax.tasks.text_lines import STDIN, count_lines, read_lines

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "run:DIR[@STEP|@best], elmo:DIR, hf:DIR, hf:OWNER/NAME@REVISION, google:PREFIX.", required=True
)
_INPUT = flags.DEFINE_string("input", STDIN, "A file with a sentence a line, .gz too; - is the standard input.")
_OUTPUT = flags.DEFINE_string("output", None, "FILE.hdf5, FILE.npz or FILE.jsonl.", required=True)
_PRETOKENIZED = flags.DEFINE_bool("pretokenized", False, "The lines are words with whitespace between them.")
_LAYERS = flags.DEFINE_string(
    "layers", "", f"Numbers such as -1,-2 (0: the input), or {ALL}. Default: {ALL} of ELMo, BERT's last four."
)
_COMBINE = flags.DEFINE_enum("combine", "none", COMBINATIONS, "What becomes of several layers.")
_WEIGHTS = flags.DEFINE_list("weights", [], "With mix: a number for each layer, taken as it is.")
_GAMMA = flags.DEFINE_float("gamma", 1.0, "With mix: what the sum is multiplied with.")
_UNIT = flags.DEFINE_enum("unit", "word", UNITS, "What has a vector; pieces are BERT's.")
_POOLING = flags.DEFINE_enum("pooling", "mean", POOLINGS, "Which of a word's pieces are its vector.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", DTYPES, "Of the vectors in the file.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Rows a forward pass; means more with --stateful.")
_MAX_SEQ_LENGTH = flags.DEFINE_integer(
    "max_seq_length", 0, "Of BERT, [CLS] and [SEP] among them; 0: the model's positions, 128 in JSON lines."
)
_STATEFUL = flags.DEFINE_bool("stateful", False, "ELMo: carry the LSTM's state from batch to batch.")
_GOOGLE_LENGTH = 128
_PROGRESS_SECONDS = 10.0


def main(argv: list[str]) -> int:
    """Run the command line."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unknown arguments: {' '.join(argv[1:])}; the text is in --input=FILE, or comes by a pipe"
        )
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # orbax warns of a file that it does not need
    try:
        is_google = check_ending(_OUTPUT.value) == JSON_LINES
        num_lines = count_lines(_INPUT.value)
        _extract(_extractor(is_google), is_google, num_lines)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"extract_features: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _extractor(is_google: bool) -> FeatureExtractor:
    if is_google and (_COMBINE.value != "none" or _PRETOKENIZED.value or _DTYPE.value != "float32"):
        raise ValueError(f"{JSON_LINES} are texts' pieces with each layer by itself; write .hdf5 or .npz for the rest")
    encoder = load(_CHECKPOINT.value, _MAX_SEQ_LENGTH.value, _UNIT.value)
    last_four = ",".join(str(-1 - number) for number in range(min(4, encoder.num_outputs - 1)))
    layers = _LAYERS.value or (last_four if isinstance(encoder, BertFeatures) else ALL)
    try:
        weights = tuple(map(float, _WEIGHTS.value))
    except ValueError:
        raise ValueError(f"--weights is {','.join(_WEIGHTS.value)}; it takes numbers with commas between") from None
    choice = LayerChoice.parse(layers, encoder.num_outputs, _COMBINE.value, weights, _GAMMA.value)
    if is_google:
        if not isinstance(encoder, BertFeatures):
            raise ValueError(f"{JSON_LINES} are BERT's; write an ELMo's vectors to .hdf5 or .npz")
        length = _MAX_SEQ_LENGTH.value or min(_GOOGLE_LENGTH, encoder.max_length)
        encoder = BertFeatures(encoder.weights, length)
    return FeatureExtractor(encoder, choice, _POOLING.value, _DTYPE.value, _BATCH_SIZE.value, _STATEFUL.value)


def _lines(extractor: FeatureExtractor, is_google: bool, notes: Notes, of_all: str) -> Iterator[EncodedLine]:
    """Yield the lines, and say how far reading is: computing is close behind, writing where all before is computed."""
    encoder, words = extractor.encoder, 0
    begin = said = time.monotonic()
    for number, text in enumerate(read_lines(_INPUT.value), 1):
        if is_google and isinstance(encoder, BertFeatures):
            line = encoder.encode_text(number - 1, text, notes)
        else:
            line = extractor.encode(number - 1, text, _PRETOKENIZED.value, notes)
        yield line
        words, now = words + len(line.words), time.monotonic()
        if now - said > _PROGRESS_SECONDS:
            said = now
            print(f"line {number:,}{of_all}, {words / (now - begin):,.0f} {_unit(is_google)}/s", file=sys.stderr)


def _unit(is_google: bool) -> str:
    return "pieces" if is_google or _UNIT.value == "piece" else "words"


def _extract(extractor: FeatureExtractor, is_google: bool, num_lines: int | None) -> None:
    notes, of_all = Notes(), "" if num_lines is None else f" of {num_lines:,}"
    begin = time.monotonic()
    done = words = 0
    with FeatureFile(_OUTPUT.value, extractor.choice.names) as file:
        for features in extractor.extract(_lines(extractor, is_google, notes, of_all)):
            file.add(features)
            done, words = done + 1, words + len(features.words)
    seconds, unit = time.monotonic() - begin, _unit(is_google)
    kept, width = extractor.shape
    print(
        f"wrote {_OUTPUT.value}: {done:,} lines, {words:,} {unit}, {kept} × {width} {extractor.dtype} each, in "
        f"{seconds:.1f} s with compilation: {words / seconds:,.0f} {unit}/s",
        file=sys.stderr,
    )
    for line in notes.lines():
        print(f"  {line}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
