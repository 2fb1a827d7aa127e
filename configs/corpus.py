"""Corpora: from text to a vocabulary and sharded instances.

Run:      python -m launch.prepare --config=configs/corpus.py:name=python_docs
          python -m launch.prepare --config=configs/corpus.py:name=text,kind=books,path=/data/books
          python -m launch.prepare --config=configs/corpus.py:name=text,kind=jsonl,path=/data,sets=nsp-128+sop-128
          python -m launch.prepare --config=configs/corpus.py:name=wiki_books,wikipedia=/data/wiki,books=/data/books
          python -m launch.prepare --config=configs/corpus.py:name=google,path=sample_text.txt,vocab=vocab.txt
Hardware: CPU; all cores are used, under 0.5 GB a process
Time:     python_docs 7 s of one core; text 10 s of one core for 82 MB in Google's format (2026-11-22, busy machine)
Expect:   python_docs of CPython 3.11: 712 documents, 311,000 words, 1.9 MB, 8,291 + 798 rows of 64; wiki_books below
Source:   Devlin et al. 2019 §3.1: BooksCorpus (800M words) and English Wikipedia (2,500M words)

Names:
  python_docs  The documentation of the Python that runs this; needs no download. Validation is whole modules.
  text         Your own files: kind is sentences, lines, books, jsonl, wikiextractor, mediawiki, parquet or tfds.
  wiki_books   The paper's corpus, from what can be had today:
               * Wikipedia: the dump enwiki-<date>-pages-articles-multistream*.xml-p*.bz2 of dumps.wikimedia.org (take
                 the parts, not the one file: a run that was stopped then need not decompress everything again), kind
                 mediawiki; or parquet `20231101.en` of the dataset wikimedia/wikipedia at huggingface.co, stripped
                 already: `wikipedia_kind=parquet`. Expected: 6.4 million articles, about 20 GB of text and 3,300M
                 words with headings and lists, which the dump's reader leaves out as the paper did.
               * Books: BooksCorpus is no longer given out by its authors. The dataset bookcorpus/bookcorpus at
                 huggingface.co has its 74 million sentences (about 4.8 GB, 985M words) as parquet, a sentence a row,
                 without borders between books: `books_kind=parquet` cuts it into documents of 200 rows. Or a directory
                 with a text file a book (Project Gutenberg, PG-19), kind books.
               Time: not measured as a whole. By the rates measured on samples, 25 GB of plain text take 1 core hour
               (8 MB/s a core); a dump's markup comes off at 1.9 MB/s of wikitext a core, about 12 core hours more.
               One process decompresses and reads the XML, which feeds some 10 cores.
  google       create_pretraining_data.py's own instances, bit for bit: static masks, one process, all in memory.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from bert_jax.config import choose, parse_arg

NAMES = ("python_docs", "text", "wiki_books", "google")


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of a corpus; see the head of this file for the names."""
    options: Any = parse_arg(
        arg,
        name="python_docs",  # of NAMES; the output goes to data/<name> unless --corpus says otherwise
        kind="sentences",  # name=text: the kind of source
        path="",  # name=text and google: a file, directory or glob
        wikipedia="",  # name=wiki_books: where the Wikipedia files are
        wikipedia_kind="mediawiki",  # or wikiextractor, jsonl, parquet
        books="",  # name=wiki_books: where the books are
        books_kind="books",  # or parquet, lines
        vocab="",  # a vocab.txt; empty: a vocabulary is trained
        vocab_size=0,  # pieces of a trained vocabulary; 0: the corpus' default
        cased=False,  # keep capitals and accents, in a trained vocabulary
        sets="",  # instance sets, PAIRS-LENGTH[-packed] or stream-WORDS, + between them; empty: the corpus' default
        words=100_000,  # stream-WORDS: the most words that are predicted, the three marks included
        min_count=3,  # stream-WORDS: a word that the train split has less often is not predicted
        splitting="basic",  # stream-WORDS: or whitespace, for text whose words are set apart already
        buckets=0,  # shards a split; 0: the corpus' default, which for name=text goes by the size of the files
        whole_word=False,  # name=google: --do_whole_word_mask
        duplicates=0,  # passes over the corpus with other pairs; 0: 1, and 10 for name=google (--dupe_factor)
        on_error="stop",  # or skip: go on after a corrupt input, and count it
    )
    choose("name", options.name, NAMES)
    corpus = {"python_docs": _python_docs, "text": _text, "wiki_books": _wiki_books, "google": _google}[options.name]
    values = corpus(options)
    return ConfigDict({"name": options.name, **values}, convert_dict=True)


def _python_docs(options: Any) -> dict[str, Any]:
    values = _corpus(options, [source("python_docs")], default_sets="nsp-64", vocab_size=4096, buckets=4)
    values["validation_fraction"] = 0.08  # 2 MB of text: about 50 modules
    return values


def _text(options: Any) -> dict[str, Any]:
    sources = [source(options.kind, options.path)]
    return _corpus(options, sources, default_sets="nsp-128", vocab_size=30_522, buckets=0)


def _wiki_books(options: Any) -> dict[str, Any]:
    sources = [
        source(options.wikipedia_kind, options.wikipedia, "wikipedia"),
        source(options.books_kind, options.books, "books"),
    ]
    if options.books_kind == "parquet":
        sources[1]["rows_per_document"] = 200  # sentences; the data set has no borders
    return _corpus(
        options, sources, default_sets="nsp-128+nsp-512", vocab_size=30_522, buckets=1024 * max(1, options.duplicates)
    )


def _google(options: Any) -> dict[str, Any]:
    values = _corpus(options, [source("sentences", options.path)], default_sets="nsp-128", vocab_size=30_522, buckets=1)
    values["validation_fraction"] = 0.0  # Google's evaluation takes other files
    values["seed"] = 12_345  # --random_seed
    for instance in values["instances"]:
        instance["name"] = instance["name"].replace("nsp", "google", 1)
        instance["mode"] = "google"
        instance["duplicates"] = options.duplicates or 10  # --dupe_factor
        instance["whole_word"] = options.whole_word
        instance["max_predictions_per_sequence"] = 20 if instance["sequence_length"] <= 128 else 76  # README
    return values


def _corpus(
    options: Any, sources: list[dict[str, Any]], default_sets: str, vocab_size: int, buckets: int
) -> dict[str, Any]:
    names = (options.sets or default_sets).split("+")
    windows = [name for name in names if name.startswith("stream-")]
    return {
        "sources": sources,
        "instances": [instance_set(name, options.duplicates or 1) for name in names if name not in windows],
        "streams": [stream_set(name, options.words, options.min_count, options.splitting) for name in windows],
        "tokenizer": {
            "vocab_file": options.vocab,  # "" trains a vocabulary
            "vocab_size": options.vocab_size or vocab_size,  # pieces; of a trained vocabulary only
            # None: a given vocabulary decides by its pieces, a trained one is uncased.
            "do_lower_case": False if options.cased else placeholder(bool),
            "sample_megabytes": 200.0,  # of text that a vocabulary is trained on
        },
        "num_buckets": options.buckets or buckets,  # units of work, and shards a split; 0: by the inputs' size
        "validation_fraction": 0.01,  # of the documents
        "seed": 0,  # of pairs, packing and order
        "on_error": options.on_error,  # or "skip"
    }


def source(kind: str, path: str = "", name: str = "") -> dict[str, Any]:
    """Return one entry of `sources`."""
    return {
        "kind": kind,  # a key of bert_jax.corpus.sources.KINDS
        "path": path,  # file, directory, glob
        "name": name or kind,  # in counts
        "column": "text",  # of jsonl, parquet and tfds
        "rows_per_document": 0,  # for kinds lines and parquet: sentences a document
        "data_dir": "",  # of tfds; empty: TFDS_DATA_DIR
    }


def instance_set(name: str, duplicates: int) -> dict[str, Any]:
    """Return the instance set that a name such as `nsp-128` or `none-512-packed` means."""
    pairs, _, rest = name.partition("-")
    length, _, packed = rest.partition("-")
    if not length.isdecimal() or packed not in ("", "packed"):
        raise ValueError(f"instance set {name!r} is not PAIRS-LENGTH or PAIRS-LENGTH-packed, such as nsp-128")
    return {
        "name": name,
        "pairs": pairs,  # nsp, sop or none
        "sequence_length": int(length),  # tokens a row
        "short_sequence_probability": 0.0 if pairs == "none" else 0.1,  # of documents; --short_seq_prob
        "packed": packed == "packed",  # several sequences a row
        "max_sequences_per_row": 8,  # 2 to 63; packed sets only
        "duplicates": duplicates,  # passes over the corpus
        "mode": "",  # or google
        "max_predictions_per_sequence": 20,  # of mode google only, as are the next two
        "masked_fraction": 0.15,  # --masked_lm_prob
        "whole_word": False,  # --do_whole_word_mask
    }


def stream_set(name: str, vocab_size: int, min_count: int, splitting: str) -> dict[str, Any]:
    """Return the set of word windows that a name such as `stream-20` means."""
    length = name.removeprefix("stream-")
    if not length.isdecimal():
        raise ValueError(f"instance set {name!r} is not stream-WORDS, such as stream-20")
    return {
        "name": name,
        "words_per_window": int(length),  # bilm-tf's unroll_steps
        "vocab_size": vocab_size,  # words that are predicted, at most; with the three marks
        "min_count": min_count,  # of a predicted word in the train split
        "splitting": splitting,  # basic, or whitespace
    }
