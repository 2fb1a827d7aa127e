import gzip
import io
import sys
from types import SimpleNamespace

import pytest

from bert_jax.tasks.text_lines import count_lines, read_lines


def test_lines_keep_what_only_looks_like_an_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa\r\nb\u2028c\n\n d\x0c".encode())
    assert [*read_lines(str(path))] == ["a", "b\u2028c", "", " d\x0c"]
    assert count_lines(str(path)) == 4
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [*read_lines(f"{path}.gz")] == [*read_lines(str(path))]


def test_the_standard_input_is_read_once(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a\nb\xff\n")))
    assert count_lines("-") is None
    lines = read_lines("-")
    assert next(lines) == "a"
    with pytest.raises(ValueError, match="standard input:2: the byte 0xff is not UTF-8"):
        next(lines)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"a\nb\ncaf\xe9\n", r"a.txt:3: the byte 0xe9 is not UTF-8; convert the text"),
        ("a.txt", b"\n \n", "a.txt is empty"),
        ("a.txt", b"", "a.txt is empty; give lines of text"),
        ("a.txt.gz", gzip.compress(b"a\n" * 1000, mtime=0)[:-12], "cannot be unpacked"),
        ("a.txt.gz", b"a\n", "cannot be unpacked"),
    ],
)
def test_what_cannot_be_read_is_said(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        count_lines(str(tmp_path / name))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file; give one with a text a line"):
        count_lines(str(tmp_path))
