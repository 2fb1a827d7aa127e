"""Prepare a corpus with Apache Beam: what `launch.prepare` makes, record for record, on one machine or on many.

    python -m launch.prepare_beam --config=configs/corpus.py:name=python_docs --corpus=data/python_docs

Behind `--` stand Beam's own options, such as `-- --runner=DataflowRunner --project=my-project`; docs/tpu.md has them
all, and --dry_run checks them and runs nothing. Needs requirements-beam.txt, in an environment of its own. The same
command continues a run that was stopped.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from bert_jax.config import build, parse_flags
from bert_jax.corpus.beam import check_arguments, prepare_with_beam
from bert_jax.corpus.pipeline import CorpusConfig
from bert_jax.corpus.remote import as_path

_CONFIG = config_flags.DEFINE_config_file("config", None, "The corpus: configs/corpus.py:name=…, see there.")
_CORPUS = flags.DEFINE_string("corpus", "", "Output directory, gs:// for workers elsewhere; data/<name> if empty.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Let Beam's runner check its arguments, and run nothing.")


def main(argv: list[str]) -> None:
    """Prepare the corpus that the flags say."""
    if _CONFIG.value is None:
        raise app.UsageError("say what to prepare, such as --config=configs/corpus.py:name=python_docs")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Beam tells much
    values = _CONFIG.value.to_dict()
    corpus = as_path(_CORPUS.value or f"data/{values['name']}")
    del values["name"]
    try:
        config = build(CorpusConfig, values)
        if _DRY_RUN.value:
            check_arguments(config, corpus, argv[1:])
            print(f"accepted, nothing was run: {corpus} by Beam {' '.join(argv[1:]) or 'on this machine'}")
            return
        manifest = prepare_with_beam(config, corpus, argv[1:])
    except (ValueError, FileNotFoundError, ModuleNotFoundError, RuntimeError) as error:
        print(f"prepare_beam: {error}", file=sys.stderr)
        sys.exit(1)
    documents = sum(source.get("documents", 0) for source in manifest["documents"]["sources"])
    print(f"{documents:,} documents, {', '.join(manifest['instances'])}: corpus in {corpus}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
