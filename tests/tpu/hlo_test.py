import pytest

from bert_jax.tpu.hlo import Array, parse_program
from tests.tpu.programs import LOOP, PRODUCT


def test_types_carry_size_and_memory_space():
    entry = parse_program(PRODUCT).computations["main"]
    copy = entry.by_name["start"]
    assert copy.opcode == "copy-start"
    assert copy.arrays == (Array("f32", (64, 128), 1), Array("f32", (64, 128)), Array("u32", (), 2))
    assert [array.in_hbm for array in copy.arrays] == [False, True, False]


@pytest.mark.parametrize(
    ("dtype", "size"), [("f32", 24), ("bf16", 12), ("pred", 6), ("s8", 6), ("f8e4m3fn", 6), ("c64", 48), ("token", 0)]
)
def test_bytes_of_types(dtype, size):
    assert Array(dtype, (2, 3)).num_bytes == size


def test_operands_roots_and_callees_are_found():
    program = parse_program(LOOP)
    assert program.entry == "main"
    entry = program.computations["main"]
    assert entry.root.name == "result"
    assert entry.by_name["loop"].called == ["body"]
    assert [user.name for user in entry.users["loop"]] == ["result"]
    assert program.computations["body"].parameters[0].name == "state"


def test_a_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        parse_program("HloModule nothing\n")
