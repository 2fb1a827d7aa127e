"""Fixtures that tests of several packages use."""

import hashlib
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # has no stubs

from bert_jax.corpus import records
from tests import fake_bucket

SHARED = Path(__file__).parents[2] / "shared" / "data"
SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
VOCABULARY = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + [chr(ord("a") + letter) for letter in range(26)]
    + [f"##{chr(ord('a') + letter)}" for letter in range(26)]
    + ["the", "cat", "sat", "on", "mat", ".", ","]
)  # 64 entries: a vocabulary that encodes any lower-case text


@pytest.fixture(autouse=True, scope="session")
def heed_ctrl_c() -> None:
    """Undo what a shell does to commands that end in `&`: they, and all that they start, ignore SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of data beside the checkout; a test that takes it is skipped where there is none."""
    if not SHARED.exists():
        pytest.skip(f"needs the shared data in {SHARED}")
    return SHARED


@pytest.fixture
def bucket() -> dict[str, bytes]:
    """The objects, by their name, of a bucket in memory that every gs:// path leads to."""
    return fake_bucket.install()


@pytest.fixture
def make_instances(tmp_path: Path) -> Callable[..., Path]:
    """A function that adds a small random instance set to a corpus and returns the corpus' directory.

    `make_instances(name="nsp-32", …)` takes the arguments of `write_instances` below. Calling it again adds another
    set to the same corpus, `tmp_path / "corpus"`, which has manifest.json, tokenizer/{vocab.txt, settings.json} and
    instances/<name>/{manifest.json, token_counts.npy, train-00000-of-00003.array_record …}.
    """

    def make(name: str = "nsp-32", **arguments: Any) -> Path:
        corpus = tmp_path / "corpus"
        write_tokenizer(corpus)
        write_instances(corpus, name, **arguments)
        return corpus

    return make


@pytest.fixture
def tiny_instances(make_instances: Callable[..., Path]) -> Path:
    """A corpus directory with one instance set, `nsp-32`.

    101 training rows (3 shards) and 13 validation rows (1 shard) of 32 tokens, sentence pairs with NSP labels, a
    vocabulary of 64, no packing, masks drawn online. Rows have 12 to 32 real tokens; the tokens are random, but the
    segment B of an IsNext row repeats letters of segment A, so there is a little to learn.
    """
    return make_instances()


def write_tokenizer(corpus: Path) -> None:
    """Write the corpus' manifest.json and tokenizer/ (WordPiece, lower case)."""
    (corpus / "tokenizer").mkdir(parents=True, exist_ok=True)
    (corpus / "tokenizer" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    settings = {
        "kind": "wordpiece",
        "do_lower_case": True,
        "strip_accents": True,
        "tokenize_chinese_chars": True,
        "max_input_chars_per_word": 200,
    }
    (corpus / "tokenizer" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    manifest = {"schema_version": 1, "config_fingerprint": "00000000", "seed": 0}
    (corpus / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def write_instances(
    corpus: Path,
    name: str,
    *,
    num_rows: int = 101,
    num_validation_rows: int = 13,
    num_shards: int = 3,
    sequence_length: int = 32,
    max_sequences_per_row: int = 1,
    pairs: str = "nsp",
    static_predictions: int = 0,
    seed: int = 0,
) -> None:
    """Write `<corpus>/instances/<name>` with random rows.

    Args:
        corpus: directory with a tokenizer/ already.
        name: of the set.
        num_rows: of the train split.
        num_validation_rows: of the validation split, in one shard.
        num_shards: of the train split.
        sequence_length: tokens a row; 12 or more for each of max_sequences_per_row.
        max_sequences_per_row: more than 1 packs 1 to so many sequences into a row.
        pairs: "nsp" or "sop" with labels, "none" without.
        static_predictions: not 0 stores that many masks a row, as mode `google` does.
        seed: of the rows.
    """
    directory = corpus / "instances" / name
    directory.mkdir(parents=True)
    record_format = records.RecordFormat(sequence_length, len(VOCABULARY), max_sequences_per_row, static_predictions)
    generator = random.Random(seed)
    train = random_rows(generator, num_rows, record_format, pairs)
    splits = {
        "train": _write_shards(directory, "train", records.encode_rows(train, record_format), num_shards),
        "validation": _write_shards(
            directory,
            "validation",
            records.encode_rows(random_rows(generator, num_validation_rows, record_format, pairs), record_format),
            1,
        ),
    }
    maskable = train.input_ids[train.sequence_ids > 0]
    token_counts = np.bincount(maskable[maskable > SPECIAL_IDS["mask"]], minlength=len(VOCABULARY)).astype(np.int64)
    np.save(directory / "token_counts.npy", token_counts)
    records.write_manifest(
        directory,
        records.InstanceManifest(
            name=name,
            record_format=record_format,
            pairs=pairs,
            masking="static" if static_predictions else "online",
            seed=seed,
            config_fingerprint="00000000",
            special_ids=SPECIAL_IDS,
            splits=splits,
            counts={
                "train": {"rows": num_rows, "real_tokens": int(np.count_nonzero(train.sequence_ids))},
                "validation": {"rows": num_validation_rows},
            },
        ),
    )


def random_rows(
    generator: random.Random, num_rows: int, record_format: records.RecordFormat, pairs: str
) -> records.Rows:
    """Return rows of `[CLS] a [SEP] b [SEP]` sequences (`[CLS] a [SEP]` for pairs "none"), padded at the end."""
    length, most_sequences = record_format.sequence_length, record_format.max_sequences_per_row
    predictions = record_format.max_predictions_per_sequence
    rows = records.Rows(
        input_ids=np.zeros((num_rows, length), np.int32),
        segment_ids=np.zeros((num_rows, length), np.int32),
        word_starts=np.zeros((num_rows, length), bool),
        sequence_ids=np.zeros((num_rows, length), np.int32),
        sequence_starts=np.zeros((num_rows, most_sequences), np.int32),
        next_sentence_labels=np.full((num_rows, most_sequences), records.NO_LABEL, np.int32),
        masked_lm_positions=np.zeros((num_rows, predictions), np.int32) if predictions else None,
        masked_lm_ids=np.zeros((num_rows, predictions), np.int32) if predictions else None,
        num_masked=np.zeros(num_rows, np.int32) if predictions else None,
    )
    room = length // most_sequences
    for row in range(num_rows):
        start = 0
        for sequence in range(_draw(generator, 1, most_sequences + 1)):
            label = _draw(generator, 0, 2)
            size = _draw(generator, 12, room + 1)
            tokens = _random_sequence(generator, size, label, with_pair=pairs != "none")
            stop = start + size
            ids = tokens[:, 0]
            rows.input_ids[row, start:stop], rows.segment_ids[row, start:stop] = ids, tokens[:, 1]
            is_piece = (ids >= VOCABULARY.index("##a")) & (ids <= VOCABULARY.index("##z"))
            rows.word_starts[row, start:stop] = ~is_piece
            rows.sequence_ids[row, start:stop] = sequence + 1
            rows.sequence_starts[row, sequence] = start
            rows.next_sentence_labels[row, sequence] = records.NO_LABEL if pairs == "none" else label
            start = stop
        if predictions:
            _mask_row(generator, rows, row, predictions)
    return rows


def _draw(generator: random.Random, low: int, high: int) -> int:
    """Return a number in [low, high). Python promises `random`'s stream; numpy does not promise its distributions'."""
    return low + int(generator.random() * (high - low))


def _random_sequence(generator: random.Random, size: int, label: int, with_pair: bool) -> np.ndarray:
    """Return int [size, 2]: ids and segments of one sequence."""
    ids = np.array([_draw(generator, SPECIAL_IDS["mask"] + 1, len(VOCABULARY)) for _ in range(size)])
    segments = np.zeros(size, np.int64)
    if with_pair:
        middle = size // 2
        if label == records.IS_NEXT:
            ids[middle + 1 : -1] = ids[1 : 1 + size - middle - 2]
        ids[middle] = SPECIAL_IDS["sep"]
        segments[middle + 1 :] = 1
    ids[0], ids[-1] = SPECIAL_IDS["cls"], SPECIAL_IDS["sep"]
    return np.stack([ids, segments], axis=1)


def _mask_row(generator: random.Random, rows: records.Rows, row: int, predictions: int) -> None:
    assert rows.masked_lm_positions is not None
    assert rows.masked_lm_ids is not None
    assert rows.num_masked is not None
    candidates = np.flatnonzero(rows.input_ids[row] > SPECIAL_IDS["mask"])
    count = _draw(generator, 1, min(predictions, len(candidates)) + 1)
    positions = np.sort([candidates[place * len(candidates) // count] for place in range(count)])
    rows.masked_lm_positions[row, :count] = positions
    rows.masked_lm_ids[row, :count] = rows.input_ids[row, positions]
    rows.num_masked[row] = count
    rows.input_ids[row, positions] = SPECIAL_IDS["mask"]


def _write_shards(directory: Path, split: str, encoded: list[bytes], num_shards: int) -> tuple[records.Shard, ...]:
    shards = []
    for number, part in enumerate(np.array_split(np.arange(len(encoded)), num_shards)):
        path = directory / f"{split}-{number:05d}-of-{num_shards:05d}.array_record"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for index in part:
            writer.write(encoded[index])
        writer.close()
        shards.append(records.Shard(path.name, len(part), hashlib.sha256(path.read_bytes()).hexdigest()))
    return tuple(shards)
