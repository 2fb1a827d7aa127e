"""Named entities: a tag for every word of files in CoNLL columns, with the document around a sentence as context.

Run:      python -m launch.finetune --config=configs/ner.py --config.init_from=hf:DIR \
              --config.data.train=eng.train --config.data.dev=eng.testa --config.data.test=eng.testb
          python -m launch.finetune --config=configs/ner.py:context=sentence --config.init_from=hf:DIR \
              --config.data.train=wnut17train.conll --config.data.dev=emerging.dev.conll
Hardware: any; 2 CPU cores for the measured rows, one accelerator for BERT-Base
Time:     WNUT 2017 (3,394 sentences, 3 epochs) from all-MiniLM-L6 (6 layers of 384): 4 to 13 min, beside other work
Expect:   that, with context=sentence,recipe=fast: dev F1 41.7 ± 0.6, test 31.3 ± 0.5 (3 seeds; docs/results.md)
          BERT-Base cased on CoNLL-2003: dev F1 96.4, test 92.4 (Table 7); not measured yet
Source:   Devlin et al. 2019 §5.3, A.3 and Table 7

Contexts:
  document  Rows are filled with the same document's sentences on both sides, where the file says where documents begin.
  sentence  A row is one sentence.
Tags are IOB1, IOB2, BIOES or BIOLU; scores are conlleval's. The paper's model is cased. Recipes: see configs/glue.py.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from bert_jax.config import choose, parse_arg
from bert_jax.tasks import grids
from configs.finetuning import RECIPES, finetuning

CONTEXTS = ("document", "sentence")


def get_config(arg: str = "") -> ConfigDict:
    """Return the config of one fine-tuning run; see the head of this file."""
    options: Any = parse_arg(
        arg,
        context="document",  # of CONTEXTS
        recipe="paper",  # of RECIPES
    )
    choose("context", options.context, CONTEXTS)
    choose("recipe", options.recipe, RECIPES)
    config = finetuning("ner", options.recipe)
    config.data = ConfigDict(
        {
            "train": "",  # a file in CoNLL columns, UTF-8; .gz too
            "dev": "",  # likewise; its F1 chooses the best checkpoint
            "test": placeholder(str),  # likewise; scored too. None: there is none
            "document_context": options.context == "document",  # §5.3: the maximal document context
            "sentences_per_row": 0,  # scored in a row of document context; 0: what leaves a quarter to either side
            "token_column": placeholder(int),  # of the words, from 0; None: found
            "tag_column": placeholder(int),  # of the tags; None: the last, or found
            "batch_size": 32,  # rows a step; of A.3's 16 and 32
            "max_seq_length": 128,  # word pieces a row; Hugging Face's default for NER, the paper does not say
            "max_buckets": 8,  # lengths that rows are padded to, each compiled once
        }
    )
    return config


def sweep(add: Callable[..., None]) -> None:
    """Add the paper's grid, three seeds each: batch 16 and 32, rate 5e-5, 3e-5 and 2e-5, 2 to 4 epochs (A.3)."""
    grids.paper(add, seeds=3)
