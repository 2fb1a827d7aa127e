import pytest

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.sentences import SentenceExample, encode_examples, order_labels, read_examples
from tests.conftest import VOCABULARY


def example(first, second=None, label=None, line=1):
    return SentenceExample(first, second, label, str(line), f"f:{line}")


def test_labels_become_ids_by_name_and_unknown_ones_an_error():
    tokenizer = WordPiece(VOCABULARY)
    rows = encode_examples([example("a", label="y"), example("b", label="x")], tokenizer, ("x", "y"), 16)
    assert rows.targets["label_ids"].tolist() == [1, 0]
    assert not encode_examples([example("a")], tokenizer, ("x", "y"), 16).targets
    with pytest.raises(ValueError, match="f:7: the label is 'z'; accepted: x, y"):
        encode_examples([example("a", label="z", line=7)], tokenizer, ("x", "y"), 16)
    with pytest.raises(ValueError, match="f:2: two texts, where f:1 has one"):
        encode_examples([example("a"), example("a", "b", line=2)], tokenizer, (), 16)


def test_a_classifier_s_order_is_kept_for_the_same_names_only():
    assert order_labels(("a", "b"), ("b", "a")) == ("b", "a")
    assert order_labels(("a", "b"), ("b", "c")) == ("a", "b")
    assert order_labels(("a", "b"), ("b", "a", "a")) == ("a", "b")


def test_plain_lines_pairs_and_objects_are_read():
    assert [*read_examples(["a\tb", "", "{c}"], ["text"], "f")] == [example("a\tb"), example("{c}", line=3)]
    assert [*read_examples(["a\tb"], ["one", "two"], "f")] == [example("a", "b")]
    objects = ['{"two": "b", "one": "a", "label": "x"}', "", '{"one": "c", "two": ""}']
    assert [*read_examples(objects, ["one", "two"], "f")] == [example("a", "b"), example("c", "", line=3)]
    assert [*read_examples([], ["text"], "f")] == []


def test_lines_without_the_texts_are_named():
    with pytest.raises(ValueError, match="f:2: 1 texts instead of 2; write first<TAB>second"):
        list(read_examples(["a\tb", "a"], ["one", "two"], "f"))
    with pytest.raises(ValueError, match="f:2: 'text' must be a text; got no such column; the row has txt"):
        list(read_examples(['{"text": "a"}', '{"txt": "b"}'], ["text"], "f"))
    with pytest.raises(ValueError, match="f:2: not JSON"):
        list(read_examples(['{"text": "a"}', "plain"], ["text"], "f"))
