import pytest

from bert_jax.corpus.documents import Document, InputLog, SourceConfig
from bert_jax.corpus.python_docs import (
    TOPICS,
    extract_python_docs,
    list_python_docs,
    prose_paragraphs,
    read_python_docs,
)

MODULE = '''"""Tools for things.

They are described here,
over two lines.
"""
class A:
    """Hold a thing::

        >>> A()
    """
    def f(self):
        "Return the :class:`~x.Thing` or `None <y>`_ at once."
        x = "not a docstring"
'''


def test_docstrings_become_paragraphs():
    document = extract_python_docs(Document(MODULE, "things", "things.py:1"), InputLog())
    assert document.text.split("\n") == [
        "Tools for things.",
        "They are described here, over two lines.",
        "Hold a thing:",
        "Return the x.Thing or None at once.",
    ]


def test_code_rules_and_tables_are_no_prose():
    items = "* first item is this\n* second item is that"
    text = f"A title here\n*****\n\n   if x:\n      y = 1\n\n{items}\n\n1 | 2 | 3\n\n>>> f(a b c)"
    assert list(prose_paragraphs(text)) == ["A title here", "first item is this", "second item is that"]


def test_a_library_is_read_without_its_tests_and_guests(tmp_path):
    for name in (TOPICS, "a.py", "test/b.py", "site-packages/c.py", "pkg/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("topics = {'if': 'About if.', 'for': 'About for.'}" if name == TOPICS else MODULE)
    paths = list_python_docs(str(tmp_path))
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["a.py", "pkg/d.py", TOPICS]
    found = [document for path in paths for document in read_python_docs(path, SourceConfig("python_docs"), InputLog())]
    assert [document.title for document in found] == ["a", "d", "if.topic", "for.topic"]


def test_a_directory_that_is_no_library_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a Python standard library"):
        list_python_docs(str(tmp_path))


def test_source_that_does_not_parse_is_reported():
    log = InputLog("skip")
    assert extract_python_docs(Document("def f(:", "x", "x.py:1"), log).text == ""
    assert log.messages == ["x.py:1: not Python source (invalid syntax (<unknown>, line 1))"]
