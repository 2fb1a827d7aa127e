"""Tags of the usual schemes become IOB2."""

import pytest

from bert_jax.tasks.iob import Entity, entities, is_tag, to_iob2


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC"),  # IOB1
        ("I-PER B-PER I-PER", "B-PER B-PER I-PER"),  # IOB1: two that touch
        ("I-PER I-LOC", "B-PER B-LOC"),
        ("B-PER I-PER O B-LOC B-LOC", "B-PER I-PER O B-LOC B-LOC"),  # IOB2 stays
        ("S-PER B-LOC I-LOC E-LOC I-LOC", "B-PER B-LOC I-LOC I-LOC B-LOC"),  # BIOES; a new one after E-
        ("U-PER U-PER B-LOC L-LOC O", "B-PER B-PER B-LOC I-LOC O"),  # BIOLU
        ("B-creative-work I-creative-work", "B-creative-work I-creative-work"),
    ],
)
def test_every_scheme_becomes_iob2(tags, expected):
    assert to_iob2(tags.split()) == expected.split()
    assert to_iob2(expected.split()) == expected.split()


def test_entities_are_spans_of_words():
    assert entities(["I-PER", "I-PER", "B-PER", "O", "B-creative-work"]) == [
        Entity("PER", 0, 2),
        Entity("PER", 2, 3),
        Entity("creative-work", 4, 5),
    ]


@pytest.mark.parametrize(("text", "good"), [("O", True), ("B-PER", True), ("PER", False), ("-", False), ("B-", False)])
def test_a_tag_is_told_from_other_columns(text, good):
    assert is_tag(text) is good
