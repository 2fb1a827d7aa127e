import pytest

from bert_jax.tpu.costs import Collective, program_costs
from bert_jax.tpu.hlo import parse_program
from tests.tpu.programs import LEFT, LOOP, PRODUCT, PRODUCT_FLOPS, RESULT, RIGHT, TILE, entry


def costs(text):
    return program_costs(parse_program(text))


def test_hbm_bytes_leave_out_what_stays_on_the_chip():
    found = costs(PRODUCT)
    assert found.flops == PRODUCT_FLOPS
    # The copy reads memory and writes the chip; the product reads the chip.
    assert found.hbm_bytes == LEFT + RIGHT + RESULT
    assert found.bytes_accessed == 2 * LEFT + LEFT + RIGHT + RESULT


def test_a_loop_counts_as_often_as_it_turns():
    found = costs(LOOP)
    assert found.flops == 5 * 2 * 8 * 8 * 8
    # A turn touches one kernel's slice, not the stack: slice 2, product 3, sum 2, store 2, and the turn's number.
    numbers = 2 * 4
    assert found.bytes_accessed == 5 * (9 * TILE + numbers)
    assert found.by_kind() == {"all-reduce": {"count": 5, "bytes": 5 * TILE}}
    assert found.sent_bytes == 5 * 2 * TILE * 3 / 4


def test_another_layout_inside_a_fusion_moves_nothing_and_hides_nothing():
    layouts = """HloModule loop

%tiled (given: f32[5,8,8]) -> f32[5,8,8] {
  %given = f32[5,8,8]{2,1,0} parameter(0)
  ROOT %copied = f32[5,8,8]{2,1,0} copy(%given)
}

%flat (given: f32[8,8]) -> f32[8,8] {
  %given = f32[8,8]{1,0} parameter(0)
  ROOT %same = f32[8,8]{1,0} bitcast(%given)
}
"""
    text = LOOP.replace("HloModule loop\n", layouts)
    for before, after in (
        ("%row = f32[1,8,8]{2,1,0} bitcast(%value)", "%row = f32[1,8,8]{2,1,0} bitcast(%again)"),
        (
            "ROOT %stored = f32[5,8,8]{2,1,0} dynamic-update-slice(%all,",
            "%stored = f32[5,8,8] dynamic-update-slice(%in,",
        ),
        (
            "  %zero = s32[] constant(0)\n  %row",
            "  %zero = s32[] constant(0)\n  %again = f32[8,8]{1,0} fusion(%value), kind=kLoop, calls=%flat\n"
            "  %in = f32[5,8,8]{2,1,0} fusion(%all), kind=kLoop, calls=%tiled\n  %row",
        ),
        (
            "%row, %turn, %zero, %zero)\n",
            "%row, %turn, %zero, %zero)\n  ROOT %out = f32[5,8,8]{2,1,0} fusion(%stored), kind=kLoop, calls=%tiled\n",
        ),
    ):
        assert before in text
        text = text.replace(before, after)
    assert costs(text) == costs(LOOP)


def test_the_number_of_turns_may_be_noted_or_unknown():
    noted = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert costs(noted).flops == 7 * 2 * 8 * 8 * 8
    with pytest.raises(ValueError, match="scan_unroll"):
        costs(LOOP.replace("direction=LT", "direction=NE"))


def test_batched_products_written_as_dilated_windows_count_their_products_alone():
    # [2 heads, 4, 8] · [2, 8, 16], the batch as a window that meets one element each: 2 · 2 · 4 · 8 · 16.
    text = entry(
        "%q = f32[2,4,8]{2,1,0} parameter(0)",
        "%k = f32[2,8,16]{2,1,0} parameter(1)",
        "ROOT %s = f32[2,4,16]{2,1,0} convolution(%q, %k), "
        "window={size=2 stride=1 pad=0_0 lhs_dilate=2}, dim_labels=0bf_0io->0bf",
    )
    assert costs(text).flops == 2 * 2 * 4 * 8 * 16


@pytest.mark.parametrize(("window", "products"), [("size=3 pad=1_1", 3 * 8 - 2), ("size=3 stride=2 pad=0_0", 9)])
def test_padding_is_not_multiplied(window, products):
    returned = 8 if "stride" not in window else 3
    text = entry(
        "%x = f32[2,8,5]{2,1,0} parameter(0)",
        "%w = f32[3,5,7]{2,1,0} parameter(1)",
        f"ROOT %y = f32[2,{returned},7]{{2,1,0}} convolution(%x, %w), window={{{window}}}, dim_labels=b0f_0io->b0f",
    )
    assert costs(text).flops == 2 * 2 * 5 * 7 * products


def test_pallas_kernels_count_what_they_declare_and_touch():
    text = entry(
        "%x = f32[16]{0} parameter(0)",
        'ROOT %y = f32[16]{0} custom-call(%x), custom_call_target="tpu_custom_call", '
        'backend_config={"custom_call_config":{"cost_estimate":{"transcendentals":"3","flops":"1234"}}}',
    )
    found = costs(text)
    assert (found.flops, found.kernels, found.hbm_bytes) == (1234, 1, 128)


@pytest.mark.parametrize(("kernel", "products"), [("splash_mha_fwd_segmented", 2), ("splash_mha_dkv_segmented", 5)])
def test_attention_kernels_count_their_products(kernel, products):
    text = entry(
        "%next = s8[1,1,1]{2,1,0} parameter(0)",
        "%q = bf16[3,2,256,64]{3,2,1,0} parameter(1)",
        "%k = bf16[3,2,512,64]{3,2,1,0} parameter(2)",
        f"ROOT %{kernel}.1 = bf16[3,2,256,64]{{3,2,1,0}} custom-call(%next, %next, %q, %k, %k), "
        'custom_call_target="tpu_custom_call"',
    )
    assert costs(text).flops == products * 2 * (3 * 2) * 256 * 512 * 64


def test_what_another_core_of_the_chip_runs_is_counted_once():
    text = """HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}, execution_thread="sparsecore"

%reduce (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %y = f32[8]{0} all-reduce(%x), replica_groups=[1,4]<=[4], to_apply=%add
}, execution_thread="sparsecore"

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %start = ((), (), (s32[1]{0:S(2)})) call-start(), async_execution_thread="sparsecore", to_apply=%reduce
  %update = ((f32[8]{0}), f32[8]{0}) call-update(%start, %x)
  ROOT %y = f32[8]{0} call-done(%update)
}
"""
    found = costs(text)
    assert found.collectives == (Collective("all-reduce", 32, 4, 1, ("f32[8]",)),)
    assert found.hbm_bytes == 64
    with pytest.raises(ValueError, match="calls reduce, which its text lacks"):
        costs(text.replace("%reduce (x", "%other (x"))


def test_what_leaves_a_slice_is_counted_apart():
    text = entry(
        "%x = f32[16]{0} parameter(0)",
        "%token = token[] after-all()",
        "%sent = (f32[16]{0}, u32[], token[]) send(%x, %token), channel_id=1, is_host_transfer=true, "
        'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}',
        "ROOT %done = token[] send-done(%sent), channel_id=1",
    )
    found = costs(text)
    assert (found.between_slices_bytes, found.sent_bytes) == (64, 0)


def test_gathers_read_what_they_return():
    text = entry(
        "%table = f32[1000,4]{1,0} parameter(0)",
        "%ids = s32[3]{0} parameter(1)",
        "ROOT %rows = f32[3,4]{1,0} gather(%table, %ids), offset_dims={1}",
    )
    assert costs(text).hbm_bytes == 2 * 3 * 4 * 4


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0'}", 8),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0','axis_1'}", 16),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}", 4),
    ],
)
def test_group_sizes(groups, size):
    text = entry("%x = f32[8]{0} parameter(0)", f"ROOT %y = f32[8]{{0}} all-reduce(%x), {groups}, to_apply=%add")
    assert costs(text).collectives == (Collective("all-reduce", 32, size, 1, ("f32[8]",)),)
    with pytest.raises(ValueError, match="not understood"):
        costs(text.replace(groups, "replica_groups={}"))


def test_a_collective_in_two_halves_counts_once():
    text = entry(
        "%x = bf16[4]{0} parameter(0)",
        "%start = (bf16[4]{0}, bf16[16]{0}) all-gather-start(%x), replica_groups=[1,4]<=[4], dimensions={0}",
        "ROOT %y = bf16[16]{0} all-gather-done(%start)",
    )
    found = costs(text)
    assert found.by_kind() == {"all-gather": {"count": 1, "bytes": 32}}
    assert found.sent_bytes == 32 * 3 / 4
    assert found.collectives[0].shapes == ("bf16[16]",)
    assert found.hbm_bytes == 8 + 32
