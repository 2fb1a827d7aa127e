"""Prepare a corpus: text → documents, vocabulary, sharded instances.

    python -m launch.prepare --config=configs/corpus.py:name=python_docs

The same command continues a run that was stopped, and does nothing when all is done. With --corpus=gs://bucket/name the
corpus is prepared in data/name and uploaded; `launch.prepare_beam` is for corpora that one machine is too slow for.

    python -m launch.prepare --corpus=data/python_docs --verify

reads all shards of a finished corpus and says which are not what was written.
"""

import os
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from bert_jax.config import build, parse_flags
from bert_jax.corpus.pipeline import CorpusConfig, Prepared, prepare
from bert_jax.corpus.remote import AnyPath, as_path, is_object_store, upload
from bert_jax.corpus.shards import verify_shards
from bert_jax.corpus.streams import StreamManifest

_CONFIG = config_flags.DEFINE_config_file("config", None, "The corpus: configs/corpus.py:name=…, see there.")
_CORPUS = flags.DEFINE_string("corpus", "", "Output directory, local or gs://; data/<name> if empty.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "Worker processes; 0 = one a core. Not in the result.")
_VERIFY = flags.DEFINE_bool("verify", False, "Prepare nothing; compare the corpus' shards with their sha256.")


def main(argv: list[str]) -> None:
    """Prepare the corpus that the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}; all options are flags")
    if _CONFIG.value is None and not (_VERIFY.value and _CORPUS.value):
        raise app.UsageError("say what to prepare, such as --config=configs/corpus.py:name=python_docs")
    values = _CONFIG.value.to_dict() if _CONFIG.value else {}
    corpus = as_path(_CORPUS.value or f"data/{values['name']}")
    values.pop("name", None)
    directory = corpus if isinstance(corpus, Path) else Path("data") / corpus.name  # where it is made
    try:
        if _VERIFY.value:
            print(verify(corpus))
            return
        config = build(CorpusConfig, values)
        if is_object_store(corpus):
            corpus.exists()  # fails now, and not after hours, where what opens the bucket is not installed
        prepared = prepare(config, directory, _NUM_PROCESSES.value or _num_cores(), show_progress=True)
        if is_object_store(corpus):
            print(f"uploading {directory} to {corpus}", file=sys.stderr)
            print(f"{upload(directory, corpus):,} files uploaded", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\nstopped; the same command continues {directory}", file=sys.stderr)
        sys.exit(130)
    except (ValueError, FileNotFoundError, RuntimeError, ImportError) as error:
        print(f"\nprepare: {error}", file=sys.stderr)
        sys.exit(1)
    print(summary(prepared, corpus))


def verify(directory: AnyPath) -> str:
    """Return the sentence that all shards of a corpus are as they were written; raise ValueError if some are not."""
    count, wrong = verify_shards(directory)
    if wrong:
        names = "".join(f"\n  {path}" for path in wrong)
        raise ValueError(
            f"{len(wrong)} of {count} shards are missing or not what was written:{names}\ncopy them again, or remove "
            "the directory that they are in and run the command that prepared the corpus again"
        )
    return f"all {count} shards of {directory} are what was written (sha256)"


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def summary(prepared: Prepared, directory: AnyPath) -> str:
    """Return the table that is printed at the end."""
    documents, tokenizer = prepared.manifest["documents"], prepared.manifest["tokenizer"]
    columns = ("documents", "sentences", "words", "bytes", "duplicates", "empty", "corrupt")
    lines = ["", "source        " + "".join(f"{column:>14}" for column in columns)]
    for source in documents["sources"]:
        lines.append(f"{source['name']:14}" + "".join(f"{source.get(column, 0):14,}" for column in columns))
    lines += [f"  skipped: {message}" for message in documents["corrupt"]]
    lines.append("")
    if tokenizer:  # a corpus of word streams alone has none
        lines.append(
            f"vocabulary    {tokenizer['vocab_size']:,} pieces; {tokenizer['pieces_per_word']:.3f} pieces a word, "
            f"{tokenizer['unknown_rate']:.3%} of the words [UNK]\n"
        )
    streams = [instance for instance in prepared.instances if isinstance(instance, StreamManifest)]
    lines += [f"vocabulary    {stream.vocab_size:,} words of {stream.name}\n" for stream in streams]
    lines.append("instances          split            rows     sequences   real tokens     documents  shards")
    for instance in prepared.instances:
        for split, counts in instance.counts.items():
            numbers = "".join(f"{counts[key]:14,}" for key in ("rows", "sequences", "real_tokens", "documents"))
            lines.append(f"{instance.name:18} {split:10} {numbers}{len(instance.splits[split]):8}")
    memory = f"peak memory {prepared.peak_memory_bytes / 1e6:,.0f} MB"
    rate = prepared.megabytes / prepared.seconds
    how = f"{rate:.2f} MB/s with {prepared.processes} processes, {rate / prepared.processes:.2f} a process"
    if prepared.continued:
        how = "the rest is from earlier runs"
    lines.append(f"\n{prepared.megabytes:.1f} MB of text in {prepared.seconds:.1f} s: {how}; {memory}")
    lines += [f"warning: {warning}" for warning in prepared.warnings]
    evaluated = [each for each in prepared.instances if isinstance(each, StreamManifest) or each.masking == "online"]
    if any(not each.num_records("validation") for each in evaluated):
        lines.append(
            "warning: no document was held out, so training cannot evaluate; prepare it again elsewhere with a larger "
            "--config.validation_fraction, such as 0.2"
        )
    lines.append(f"corpus in {directory}")
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
