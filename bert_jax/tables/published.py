"""Published values of the tables, as the papers and READMEs give them.

Source: Devlin et al. 2019, Tables 5 to 8, dev sets; google-research/bert README, 11 March 2020 (the test scores of four
of the 24 smaller models; those of the other 20 were never published).

Oddities that are the papers': SST-2 of BERT-Base is 92.9 in Table 6 and 92.7 in Table 5; rows 2 and 3 of Table 6 have
equal parameters, they differ in heads alone.
"""

from collections.abc import Mapping

# layers-hidden-heads → perplexity of held-out masked words, and dev accuracies, means of 5 restarts
TABLE_6: Mapping[str, Mapping[str, float]] = {
    "3-768-12": {"perplexity": 5.84, "mnli": 77.9, "mrpc": 79.8, "sst2": 88.4},
    "6-768-3": {"perplexity": 5.24, "mnli": 80.6, "mrpc": 82.2, "sst2": 90.7},
    "6-768-12": {"perplexity": 4.68, "mnli": 81.9, "mrpc": 84.8, "sst2": 91.3},
    "12-768-12": {"perplexity": 3.99, "mnli": 84.4, "mrpc": 86.7, "sst2": 92.9},
    "12-1024-16": {"perplexity": 3.54, "mnli": 85.7, "mrpc": 86.9, "sst2": 93.3},
    "24-1024-16": {"perplexity": 3.23, "mnli": 86.6, "mrpc": 87.8, "sst2": 93.7},
}

TABLE_5: Mapping[str, Mapping[str, float]] = {
    "base": {"mnli": 84.4, "qnli": 88.4, "mrpc": 86.7, "sst2": 92.7, "squad": 88.5},
    "no_nsp": {"mnli": 83.9, "qnli": 84.9, "mrpc": 86.5, "sst2": 92.6, "squad": 87.9},
    "ltr_no_nsp": {"mnli": 82.1, "qnli": 84.3, "mrpc": 77.5, "sst2": 92.1, "squad": 77.8},
    "ltr_no_nsp_bilstm": {"mnli": 82.1, "qnli": 84.1, "mrpc": 75.7, "sst2": 91.6, "squad": 84.9},
}

# CoNLL-2003, dev F1, means of 5 restarts
TABLE_7: Mapping[str, float] = {
    "elmo": 95.7,
    "finetuned": 96.4,  # BERT-Base
    "embeddings": 91.0,
    "second_to_last": 95.6,
    "last": 94.9,
    "sum_last_four": 95.9,
    "concat_last_four": 96.1,
    "sum_all": 95.5,
}

# shares of the chosen tokens in percent: [MASK], the same token, a random token
TABLE_8: Mapping[str, Mapping[str, float]] = {
    "80-10-10": {"mnli": 84.2, "ner": 95.4, "ner_features": 94.9},
    "100-0-0": {"mnli": 84.3, "ner": 94.9, "ner_features": 94.0},
    "80-0-20": {"mnli": 84.1, "ner": 95.2, "ner_features": 94.6},
    "80-20-0": {"mnli": 84.4, "ner": 95.2, "ner_features": 94.7},
    "0-20-80": {"mnli": 83.7, "ner": 94.8, "ner_features": 94.6},
    "0-0-100": {"mnli": 83.6, "ner": 94.9, "ner_features": 94.6},
}

# Test scores: the second one where GLUE has two, MNLI matched
_SMALL_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
SMALL_BERTS: Mapping[str, Mapping[str, float]] = {
    "2-128-2": dict(zip(_SMALL_TASKS, (0.0, 83.2, 71.1, 73.6, 83.4, 70.2, 81.5, 57.2), strict=True)),
    "4-256-4": dict(zip(_SMALL_TASKS, (0.0, 85.9, 71.8, 73.3, 86.2, 74.8, 84.1, 57.9), strict=True)),
    "4-512-8": dict(zip(_SMALL_TASKS, (27.8, 89.7, 76.2, 77.0, 87.0, 77.6, 86.4, 61.8), strict=True)),
    "8-512-8": dict(zip(_SMALL_TASKS, (38.0, 89.6, 81.6, 78.4, 87.9, 80.0, 87.7, 62.2), strict=True)),
}
