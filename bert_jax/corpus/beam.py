"""The stages of `pipeline.py` done by Apache Beam: on one machine (DirectRunner) or on many (DataflowRunner).

The steps, their order and the functions that do them are those of `launch.prepare`, and so are the files that they
leave, bit for bit. Beam adds that inputs are read side by side, and that a worker needs no shared disk: it copies what
a bucket needs from the corpus' directory, which may be gs://, works on its own disk and copies the results there.

    inputs → chunks of documents ⇒ grouped by bucket → documents/, sample/       one job
    sample/ → tokenizer/                                                         in this process
    buckets → instances/<name>/ → manifests, by this process                     a job; two for a stream
    manifest.json

A stage whose manifest is there is not done again. An input is the unit of reading: a dump in one file is read by one
worker, one in parts by many. Mode `google` is one stream of random numbers, and `launch.prepare`'s alone.
"""

import dataclasses
import functools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from bert_jax.config import fingerprint
from bert_jax.corpus.buckets import (
    SPLITS,
    DocumentsConfig,
    bucket_file,
    describe_documents,
    read_bucket,
    read_chunks,
    read_documents_manifest,
    settle_bucket,
    split_chunk,
    write_json,
)
from bert_jax.corpus.documents import InputLog
from bert_jax.corpus.pipeline import (
    STATISTICS_BYTES,
    CorpusConfig,
    check_config,
    claim,
    has_tokenizer,
    only_process,
    prepare_tokenizer,
    write_manifest,
)
from bert_jax.corpus.progress import Progress
from bert_jax.corpus.records import MANIFEST
from bert_jax.corpus.remote import AnyPath, as_path, copy_files, is_object_store, list_files
from bert_jax.corpus.shards import ShardsConfig, build_bucket, done_file, finish_set
from bert_jax.corpus.sources import sized_inputs
from bert_jax.corpus.stream_shards import (
    StreamShardsConfig,
    build_window_bucket,
    count_bucket,
    finish_stream,
    write_vocabulary,
)
from bert_jax.corpus.vocabulary import WordPiece

Result = TypeVar("Result")
Entry = tuple[int, int, int, bytes]  # source, input of it, chunk of that, and its documents of one bucket


def prepare_with_beam(config: CorpusConfig, corpus: AnyPath, arguments: list[str]) -> dict[str, Any]:
    """Make a corpus of `config`, or continue it, and return its manifest.

    Args:
        config: what to make.
        corpus: its directory, gs:// or local; one that all workers reach.
        arguments: Beam's own, such as `--runner=DataflowRunner`; none run on this machine.

    Raises:
        ValueError: what Beam's runner or `launch.prepare` would refuse.
        FileNotFoundError: a source or vocabulary that does not exist.
        ModuleNotFoundError: Beam is not installed.
        RuntimeError: another process of this machine prepares the directory.
    """
    started = time.perf_counter()
    check_arguments(config, corpus, arguments)
    config = check_config(config, corpus)
    corpus.mkdir(parents=True, exist_ok=True)
    with only_process(corpus):
        config = claim(config, corpus)
        documents = _prepare_documents(config, corpus, arguments)
        tokenizer = _prepare_tokenizer(config, corpus) if config.instances else {}
        if (corpus / "sample").is_dir():
            _remove(corpus / "sample")
        _prepare_instances(config, corpus, arguments)
        for stream in config.streams:
            _prepare_stream(config, stream.name, corpus, arguments)
        names = [each.name for each in (*config.instances, *config.streams)]
        measured = {"seconds": {"all": time.perf_counter() - started}, "runner": arguments}
        return write_manifest(config, corpus, documents, tokenizer, names, measured)


def check_arguments(config: CorpusConfig, corpus: AnyPath, arguments: list[str]) -> None:
    """Let Beam's runner check its arguments, without network, and refuse directories that its workers cannot reach.

    Raises:
        ValueError: with the runner's own words, or with the path.
        ModuleNotFoundError: Beam is not installed.
    """
    try:
        from apache_beam.options.pipeline_options import StandardOptions  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}; Beam has requirements of its own: install requirements-beam.txt into an environment for it"
        ) from None
    if config.is_google:
        raise ValueError("mode 'google' is one stream of random numbers, made in one process: use launch.prepare")
    runner = _pipeline([*arguments, "--dry_run=true"]).options.view_as(StandardOptions).runner or ""
    if "dataflow" not in runner.lower():
        return
    paths = [path for inputs in sized_inputs(config.sources) for path, _ in inputs]
    for path in [str(corpus), *paths]:
        if not is_object_store(path):
            raise ValueError(f"{path} is on this machine, which the workers of {runner} cannot reach; use gs://")


def _pipeline(arguments: list[str]) -> Any:
    """Return a pipeline, which checks its arguments as it is made."""
    import apache_beam  # pyright: ignore[reportMissingImports]
    from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]

    return apache_beam.Pipeline(options=PipelineOptions(arguments))


def _for_each_bucket(label: str, function: Callable[[int], None], num_buckets: int, arguments: list[str]) -> None:
    import apache_beam as beam  # pyright: ignore[reportMissingImports]

    with _pipeline(arguments) as pipeline:
        buckets = pipeline | "buckets" >> beam.Create(range(num_buckets)) | "spread" >> beam.Reshuffle()
        _ = buckets | label >> beam.Map(function)


def _on_own_disk(corpus: AnyPath, names: list[str], work: Callable[[Path], Result]) -> Result:
    """Do some work in an empty directory with a few of the corpus' files, and copy to the corpus what is new then."""
    with tempfile.TemporaryDirectory() as directory:
        disk = Path(directory)
        copy_files(names, corpus, disk)
        result = work(disk)
        new = [name for name in list_files(disk) if name not in names]
        # JSON says that something is there, so it comes last.
        copy_files([name for name in new if not name.endswith(".json")], disk, corpus)
        copy_files([name for name in new if name.endswith(".json")], disk, corpus)
        return result


def _prepare_documents(config: CorpusConfig, corpus: AnyPath, arguments: list[str]) -> dict[str, Any]:
    """Make documents/ and sample/, or return the manifest that is there."""
    manifest = corpus / "documents" / MANIFEST
    if manifest.exists():
        return read_documents_manifest(manifest)
    import apache_beam as beam  # pyright: ignore[reportMissingImports]

    documents, inputs = config.documents, sized_inputs(config.sources)
    scatter = corpus / "documents" / "scatter"
    scatter.mkdir(parents=True, exist_ok=True)
    items = [(source, number, *entry) for source, each in enumerate(inputs) for number, entry in enumerate(each)]
    sample = _sample_characters(config)
    with _pipeline(arguments) as pipeline:
        chunks = (
            pipeline
            | "inputs" >> beam.Create(items)
            | "spread" >> beam.Reshuffle()
            | "scatter" >> beam.FlatMap(functools.partial(scatter_input, documents, str(corpus)))
        )
        # A bucket without documents has files, too.
        buckets = pipeline | "buckets" >> beam.Create([(bucket, None) for bucket in range(config.num_buckets)])
        grouped = (chunks, buckets) | beam.Flatten() | beam.GroupByKey()
        _ = grouped | "settle" >> beam.MapTuple(functools.partial(settle_entries, documents, str(corpus), sample))
    counts: list[Counter[str]] = [Counter() for _ in inputs]
    messages: list[str] = []
    for source, number, *_ in items:
        note = json.loads(_input_note(corpus, source, number).read_text())
        counts[source] += Counter(note["counts"])
        messages += note["messages"]
    settled = [json.loads((scatter / f"{bucket:05d}.json").read_text()) for bucket in range(config.num_buckets)]
    values = describe_documents(documents, inputs, counts, messages[: InputLog.MAX_MESSAGES], settled)
    write_json(manifest, values)
    _remove(scatter)
    return json.loads(json.dumps(values))


def _input_note(corpus: AnyPath, source: int, number: int) -> AnyPath:
    return corpus / "documents" / "scatter" / f"input-{source:05d}-{number:05d}.json"


def scatter_input(
    config: DocumentsConfig, corpus: str, item: tuple[int, int, str, int]
) -> Iterator[tuple[int, Entry | None]]:
    """Read one input; yield its documents by their bucket, and leave a note of what did not become one.

    Args:
        config: of the documents stage.
        corpus: where to leave the note.
        item: (source, number, path, size) of the input.
    """
    source, number, path, size = item
    alone = [[(path, size)] if each == source else [] for each in range(len(config.sources))]
    counts: Counter[str] = Counter()
    messages: list[str] = []
    for chunk_number, chunk in enumerate(read_chunks(config, alone, (0, 0, 0))):
        scattered = split_chunk(config, chunk)
        counts += Counter(corrupt=scattered.chunk.num_corrupt, empty=scattered.num_empty)
        messages += scattered.chunk.messages
        for bucket, data in scattered.parts.items():
            yield bucket, (source, number, chunk_number, data)
    write_json(_input_note(as_path(corpus), source, number), {"counts": counts, "messages": messages})


def settle_entries(
    config: DocumentsConfig, corpus: str, sample_characters: float, bucket: int, entries: Iterable[Entry | None]
) -> None:
    """Drop a bucket's duplicates, split it, and put the first documents for the tokenizer aside.

    Args:
        config: of the documents stage.
        corpus: where documents/ and sample/ are.
        sample_characters: about how many to put aside.
        bucket: its number.
        entries: its documents in any order; they are put into that of the inputs.
    """

    def work(disk: Path) -> None:
        raw = disk / "documents" / "scatter" / f"{bucket:05d}.raw"
        raw.parent.mkdir(parents=True)
        raw.write_bytes(b"".join(data for *_, data in sorted(entry for entry in entries if entry is not None)))
        settle_bucket(disk / "documents", config, bucket)
        file = bucket_file(disk / "sample", "train", bucket, config.num_buckets)
        file.parent.mkdir()
        _put_aside(disk / "documents" / file.name, file, sample_characters)

    _on_own_disk(as_path(corpus), [], work)


def _put_aside(bucket: AnyPath, sample: Path, characters: float) -> None:
    """Write a bucket's first documents, of about so many characters."""
    size = 0
    with sample.open("wb") as stream:
        for document in read_bucket(bucket):
            stream.write("\n".join(document).encode() + b"\n\n")
            size += sum(map(len, document))
            if size >= characters:
                break


def _sample_characters(config: CorpusConfig) -> float:
    """Return about how many characters of each bucket the tokenizer is made of."""
    return max(int(config.tokenizer.sample_megabytes * 1e6), STATISTICS_BYTES) / config.num_buckets


def _prepare_tokenizer(config: CorpusConfig, corpus: AnyPath) -> dict[str, Any]:
    """Make tokenizer/ of each bucket's first documents, if it is not there; return what the manifest says of it."""
    if has_tokenizer(corpus):
        return json.loads((corpus / "tokenizer" / "statistics.json").read_text())

    there = (corpus / "sample").is_dir()  # else `launch.prepare` made the documents, or the sets then were streams

    def work(disk: Path) -> dict[str, Any]:
        (disk / "sample").mkdir(exist_ok=True)
        for bucket in range(0 if there else config.num_buckets):
            file = bucket_file(disk / "sample", "train", bucket, config.num_buckets)
            _put_aside(corpus / "documents" / file.name, file, _sample_characters(config))
        (disk / "sample").rename(disk / "documents")
        values = prepare_tokenizer(config, disk, Progress(False))
        shutil.rmtree(disk / "documents")  # which are not the corpus'
        return values

    names = [f"sample/{name}" for name in list_files(corpus / "sample")] if there else []
    return _on_own_disk(corpus, names, work)


def _prepare_instances(config: CorpusConfig, corpus: AnyPath, arguments: list[str]) -> None:
    """Make the instance sets that are not there."""
    left = tuple(each for each in config.instances if not (corpus / "instances" / each.name / MANIFEST).exists())
    if not left:
        return
    shards = ShardsConfig(Path(), config.num_buckets, left, config.seed)
    _for_each_bucket(
        "instances", functools.partial(_build_instances, shards, str(corpus)), config.num_buckets, arguments
    )
    for instance in left:
        notes = _notes(instance.name, config.num_buckets)
        names = [*notes, *(name.replace(".json", ".npy") for name in notes), *_tokenizer_files(corpus, "tokenizer")]

        def finish(disk: Path, instance: Any = instance) -> None:
            tokenizer = WordPiece.load(disk / "tokenizer")
            finish_set(dataclasses.replace(shards, directory=disk), instance, tokenizer, fingerprint(config))

        _on_own_disk(corpus, names, finish)
        _unlink(corpus, names[: 2 * len(notes)])


def _build_instances(config: ShardsConfig, corpus: str, bucket: int) -> None:
    directory = as_path(corpus)
    if all((directory / done_file(Path(), each.name, bucket)).exists() for each in config.instances):
        return

    def work(disk: Path) -> None:
        for each in config.instances:
            (disk / "instances" / each.name).mkdir(parents=True)
        build_bucket(dataclasses.replace(config, directory=disk), bucket)

    names = [*_bucket_files(bucket, config.num_buckets), *_tokenizer_files(directory, "tokenizer")]
    _on_own_disk(directory, names, work)


def _prepare_stream(config: CorpusConfig, name: str, corpus: AnyPath, arguments: list[str]) -> None:
    """Make a set of word windows, if it is not there."""
    directory = corpus / "instances" / name
    if (directory / MANIFEST).exists():
        return
    [stream] = [each for each in config.streams if each.name == name]
    shards = StreamShardsConfig(Path(), config.num_buckets, (stream,), config.seed)
    each_bucket = functools.partial(_for_each_bucket, num_buckets=config.num_buckets, arguments=arguments)
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "tokenizer" / "settings.json").exists():
        each_bucket("words", functools.partial(_count_words, shards, str(corpus)))
        counts: Counter[str] = Counter()
        num_sentences = 0
        words = [f"instances/{name}/words-{bucket:05d}.json" for bucket in range(config.num_buckets)]
        for file in words:
            found, sentences = json.loads((corpus / file).read_bytes())
            counts.update(found)
            num_sentences += sentences

        def make(disk: Path) -> None:
            (disk / "instances" / name).mkdir(parents=True)
            write_vocabulary(disk / "instances" / name, stream, counts, num_sentences)

        _on_own_disk(corpus, [], make)
        _unlink(corpus, words)
    each_bucket("windows", functools.partial(_build_windows, shards, str(corpus)))
    notes = _notes(name, config.num_buckets)
    names = [*notes, *_tokenizer_files(corpus, f"instances/{name}/tokenizer")]
    _on_own_disk(
        corpus,
        names,
        lambda disk: finish_stream(dataclasses.replace(shards, directory=disk), stream, fingerprint(config)),
    )
    _unlink(corpus, notes)


def _count_words(config: StreamShardsConfig, corpus: str, bucket: int) -> None:
    [stream] = config.streams

    def work(disk: Path) -> None:
        found = count_bucket(dataclasses.replace(config, directory=disk), stream, bucket)
        (disk / "instances" / stream.name).mkdir(parents=True)
        write_json(disk / "instances" / stream.name / f"words-{bucket:05d}.json", found)

    _on_own_disk(as_path(corpus), _bucket_files(bucket, config.num_buckets), work)


def _build_windows(config: StreamShardsConfig, corpus: str, bucket: int) -> None:
    [stream] = config.streams
    directory = as_path(corpus)
    if (directory / done_file(Path(), stream.name, bucket)).exists():
        return

    def work(disk: Path) -> None:
        (disk / "instances" / stream.name).mkdir(parents=True)
        build_window_bucket(dataclasses.replace(config, directory=disk), stream, bucket)

    _on_own_disk(directory, _bucket_files(bucket, config.num_buckets), work)


def _bucket_files(bucket: int, num_buckets: int) -> list[str]:
    return [str(bucket_file(Path("documents"), split, bucket, num_buckets)) for split in SPLITS]


def _tokenizer_files(corpus: AnyPath, directory: str) -> list[str]:
    return [f"{directory}/{name}" for name in list_files(corpus / directory)]


def _notes(name: str, num_buckets: int) -> list[str]:
    return [str(done_file(Path(), name, bucket)) for bucket in range(num_buckets)]


def _unlink(corpus: AnyPath, names: list[str]) -> None:
    for name in names:
        (corpus / name).unlink(missing_ok=True)


def _remove(directory: AnyPath) -> None:
    if isinstance(directory, Path):
        shutil.rmtree(directory)
    else:
        directory.rmtree()
