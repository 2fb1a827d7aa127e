import json

import pytest

from bert_jax.interop import bert_json
from bert_jax.models.bert import BertConfig, named_size
from bert_jax.tables import inputs
from bert_jax.tables.kinds import make_table
from configs.tables import feature_layers, masking, model_size

FILES = (
    "SICK/SICK_train.txt",
    "SICK/SICK_trial.txt",
    "MRPC/train.tsv",
    "MRPC/dev.tsv",
    "SST-2/train.tsv",
    "SST-2/dev.tsv",
)


@pytest.fixture
def place(tmp_path):
    """A directory with a corpus, the tasks' files and a BERT of the size 4-48-3, as far as they are looked at."""
    for file in (*(f"glue/{file}" for file in FILES), "corpus/instances/nsp-64/manifest.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    config = BertConfig(**named_size("4-48-3"), vocab_size=10)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps(bert_json.write(config, {})))
    return tmp_path


def table(place, **overrides):
    config = model_size.get_config("preset=laptop")
    values = {"pretraining.corpus": str(place / "corpus"), "finetuning.glue": str(place / "glue")}
    config.update_from_flattened_dict(values | overrides)
    return make_table(config)


def test_a_table_whose_inputs_are_there_is_taken(place):
    table(place, checkpoints=f"4-48-3=hf:{place / 'bert'}").check()


def test_a_corpus_or_a_set_of_rows_that_is_not_there_is_refused(place):
    with pytest.raises(FileNotFoundError, match=r"there is no corpus .*elsewhere"):
        table(place, **{"pretraining.corpus": str(place / "elsewhere")}).check()
    with pytest.raises(FileNotFoundError, match=r"has no instance set 'nsp-32' .*; it has nsp-64"):
        table(place, **{"pretraining.instances": "nsp-32"}).check()


def test_the_files_of_every_task_are_looked_for(place):
    (place / "glue" / "SST-2" / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"SST-2/dev\.tsv does not exist"):
        table(place).check()
    table(place, **{"finetuning.tasks": ("sick", "mrpc")}).check()


def test_files_of_tfds_are_not_looked_for(place):
    table(place, **{"finetuning.glue": "tfds:glue", "finetuning.sick": str(place / "glue")}).check()


@pytest.mark.parametrize(
    ("glue", "sick", "message"),
    [
        ("tfds:glue", "", "'tfds:glue'; for sick give the folder of its files"),
        ("tfds:glue/mrpc", "{place}/glue", "'tfds:glue/mrpc'; for sst2 give .*, tfds:glue, tfds:glue/sst2"),
    ],
    ids=["a task that is not in GLUE", "another task's name"],
)
def test_what_tfds_has_not_is_refused_before_anything_runs(place, glue, sick, message):
    with pytest.raises(ValueError, match=message):
        table(place, **{"finetuning.glue": glue, "finetuning.sick": sick.format(place=place)}).check()


def test_a_checkpoint_of_another_size_than_its_row_is_refused(place):
    with pytest.raises(ValueError, match=r"has num_hidden_layers 4, 2-48-3 in config\.checkpoints says 2"):
        table(place, checkpoints=f"2-48-3=hf:{place / 'bert'}").check()


def test_files_of_named_entities_are_looked_for_in_their_directory(place):
    config = masking.get_config("preset=laptop")
    config.update_from_flattened_dict(
        {
            "pretraining.corpus": str(place / "corpus"),
            "finetuning.glue": str(place / "glue"),
            "data": str(place / "ner"),
        }
    )
    with pytest.raises(FileNotFoundError, match=r"train: .*ner/wnut17/wnut17train\.conll does not exist"):
        make_table(config).check()


def test_the_layers_of_the_model_are_held_against_the_configs(place):
    config = feature_layers.get_config("preset=laptop")
    config.update_from_flattened_dict(
        {
            "checkpoint": f"hf:{place / 'bert'}",
            "rows": ("last",),
            "tagging.train": "",
            "tagging.dev": "",
            "tagging.test": "",
        }
    )
    with pytest.raises(ValueError, match=r"num_hidden_layers 4, hidden_size 48, config\.num_layers .* says 6, 384"):
        make_table(config).check()


def test_no_file_is_no_file():
    inputs.check_files({"test": ""})
