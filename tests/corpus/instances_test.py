"""What an instance set may be, and the sizes of its records."""

import pytest

from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.records import RecordFormat


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": "npp"}, "did you mean 'nsp'"),
        ({"mode": "bert"}, "mode is 'bert'"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"sequence_length": 4}, "takes 5 to"),
        ({"short_sequence_probability": 1.5}, "takes 0 to 1"),
        ({"packed": True, "max_sequences_per_row": 1}, "2 to 63"),
        ({"duplicates": 0}, "1 time or more"),
        ({"mode": "google", "packed": True}, "create_pretraining_data.py"),
        ({"mode": "google", "pairs": "sop"}, "create_pretraining_data.py"),
        ({"masked_fraction": 0.0}, "between 0 and 1"),
        ({"max_predictions_per_sequence": 0}, "1 to 65535"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        InstanceConfig(**{"name": "test", **changes})


def test_record_sizes_follow_from_the_config():
    plain = InstanceConfig("nsp-128")
    packed = InstanceConfig("nsp-512-packed", sequence_length=512, packed=True, max_sequences_per_row=5)
    static = InstanceConfig("google-128", mode="google", max_predictions_per_sequence=9)
    assert plain.record_format(30) == RecordFormat(128, 30, 1, 0)
    assert packed.record_format(30) == RecordFormat(512, 30, 5, 0)
    assert static.record_format(30) == RecordFormat(128, 30, 1, 9)


def test_short_sequences_are_for_pairs_unless_asked_for():
    assert InstanceConfig("a").short_probability == 0.1
    assert InstanceConfig("a", pairs="none").short_probability == 0.0
    assert InstanceConfig("a", pairs="none", short_sequence_probability=0.2).short_probability == 0.2
