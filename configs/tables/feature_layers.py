"""Which layer's vectors are best: frozen features into a BiLSTM tagger of named entities; beside BERT's Table 7.

Run:      python -m launch.table --config=configs/tables/feature_layers.py --plan
          python -m launch.table --config=configs/tables/feature_layers.py:preset=laptop \
              --config.checkpoint=hf:MINILM --config.data=NER
          python -m launch.table --config=configs/tables/feature_layers.py --config.elmo_checkpoint=elmo:DIR
Hardware: preset=laptop: 2 CPU cores; one_gpu: one H200; paper: one accelerator (ELMo's pretraining: several)
Time:     preset=laptop: 57 minutes; others not run, --plan estimates them
Expect:   preset=laptop with MiniLM on WNUT 2017: dev F1 51.3 (last four layers concatenated), 40.5 (the last), 35.2
          (embeddings), 41.8 (fine-tuned); docs/results.md has all rows; the paper's values stand in the table
Source:   Devlin et al. 2019, Table 7 and §5.3; Peters et al. 2018 §3.2 for ELMo's mixture

The model is BERT-Base cased and the data CoNLL-2003 (eng.train, eng.testa). preset=laptop: a model that you name, WNUT
2017, a tagger of one layer of 200, and an ELMo that a unit pretrains on the windows stream-20 of data/wiki_books:
  python -m launch.prepare \
      --config=configs/corpus.py:name=wiki_books,wikipedia=WIKI,books=BOOKS,vocab_size=8192,sets=stream-20
(with --corpus=data/small_wiki_books, and --config.elmo.corpus here, if data/wiki_books has another vocabulary).
"""

from typing import Any

from ml_collections import ConfigDict

from bert_jax.config import choose, parse_arg
from configs.tables.presets import PRESETS, elmo, estimate, finetuning, tagging

ROWS = (
    "finetuned", "concat_last_four", "sum_last_four", "sum_all", "second_to_last", "last", "embeddings", "elmo",
    "static",
)  # fmt: skip


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of the table; see the head of this file."""
    options: Any = parse_arg(
        arg,
        preset="paper",  # of PRESETS
    )
    preset = choose("preset", options.preset, PRESETS)
    layers, hidden = (6, 384) if preset in ("laptop", "smoke") else (12, 768)
    config: Any = ConfigDict(
        {
            "table": "feature_layers",  # of bert_jax.tables.kinds.TABLES
            "name": "feature_layers",  # of the table's directory
            "preset": preset,  # that the values below are of
            "title": "Features of which layers",
            "rows": ("last", "static") if preset == "smoke" else ROWS,
            # address of the BERT; the paper's is the cased one
            "checkpoint": "" if preset in ("laptop", "smoke") else "hf:google-bert/bert-base-cased@main",
            "num_layers": layers,  # of that model
            "hidden_size": hidden,  # of that model; for the cost
            "data": "",  # directory that the files of config.tagging are in; "": as they stand
            "elmo_checkpoint": "",  # address of an ELMo; "": it is pretrained by a unit
            "remarks": (),  # below the table
            "elmo": elmo(preset),
            "tagging": tagging(preset),
            "finetuning": finetuning(preset, ("ner",)),
            "estimate": estimate(preset),
        },
        convert_dict=True,
    )
    if preset == "laptop":
        config.finetuning.peak_learning_rate = 5e-5  # docs/results.md
        config.remarks = ("WNUT 2017 is noisier than CoNLL-2003 and its test set has other entities than its dev set.",)
    return config
