import pytest

from bert_jax.corpus.streams import StreamConfig, cut_windows, decode_windows, read_in_order

DOCUMENTS = [["a b c", "d e"], [" "], ["f"]]


def test_sentences_are_reversed_in_place():
    forward, backward, num_sentences = read_in_order(DOCUMENTS, "basic")
    assert forward == ["<S>", "a", "b", "c", "<S>", "d", "e", "<S>", "f"]
    assert backward == ["</S>", "c", "b", "a", "</S>", "e", "d", "</S>", "f"]
    assert num_sentences == 3


def test_windows_chain_to_the_stream_and_share_the_word_behind():
    forward, backward, _ = read_in_order(DOCUMENTS, "basic")
    records = cut_windows(forward, backward, 3)
    assert records[0] == b"<S> a b c\n</S> c b a"
    # The last one predicts the border behind the last sentence.
    assert records[-1] == b"e <S> f <S>\nd </S> f </S>"
    assert len(records) == 3
    words = decode_windows(records, 3)
    assert [word for start in range(0, 24, 8) for word in words[start : start + 3]] == forward
    assert [word for start in range(4, 24, 8) for word in words[start : start + 3]] == backward


def test_what_does_not_fill_a_window_is_left_out():
    forward, backward, _ = read_in_order(DOCUMENTS, "basic")
    assert cut_windows(forward, backward, 4) == [b"<S> a b c <S>\n</S> c b a </S>", b"<S> d e <S> f\n</S> e d </S> f"]
    assert cut_windows(forward, backward, 10) == []
    assert len(cut_windows(forward, backward, 9)) == 1


def test_a_record_of_another_length_is_named():
    with pytest.raises(ValueError, match="record 1 of the batch does not hold two windows of 1 words and one"):
        decode_windows([b"a b\nb a", b"a b c\nc b a"], 1)


def test_a_set_that_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="words_per_window is 0; it takes 1 or more"):
        StreamConfig("stream-0", 0)
    with pytest.raises(ValueError, match="vocab_size is 3; it takes 4 or more"):
        StreamConfig("stream-5", 5, vocab_size=3)
    with pytest.raises(ValueError, match="accepted: basic, whitespace"):
        StreamConfig("stream-5", 5, splitting="bytes")
