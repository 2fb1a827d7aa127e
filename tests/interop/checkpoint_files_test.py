import pytest

from bert_jax.interop.checkpoint_files import read_json

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 90868376\n"


def test_an_object_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "é"}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": "é"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"a\.json cannot be read \(Expecting value: line 1 column 1 \(char 0\)\); fetch it again"),
        (b'{"a": "\xe9"}', r"a\.json cannot be read \(.* can't decode byte 0xe9.*\); fetch it again"),
        (b"[1]", r"a\.json holds a list; one object, \{\.\.\.\}, is needed: fetch it again"),
        (LFS_POINTER, r"a\.json is a pointer of git-lfs; run `git lfs pull` there, or fetch it again"),
    ],
)
def test_a_damaged_file_is_named(data, message, tmp_path):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "a.json")
