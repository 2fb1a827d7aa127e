"""Small programs as libtpu prints them, written by hand, whose costs can be counted on paper."""

# ruff: noqa: E501  # the lines are the compiler's

# [64, 128] · [128, 256] in bfloat16, the left side copied into on-chip memory first.
PRODUCT = """HloModule product, is_scheduled=true, entry_computation_layout={(f32[64,128]{1,0})->bf16[64,256]{1,0}}

%fused (p0: f32[64,128], p1: bf16[128,256]) -> bf16[64,256] {
  %p0 = f32[64,128]{1,0:T(8,128)S(1)} parameter(0)
  %low = bf16[64,128]{1,0:T(8,128)(2,1)} convert(%p0)
  %p1 = bf16[128,256]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %product = bf16[64,256]{1,0:T(8,128)(2,1)} convolution(%low, %p1), dim_labels=bf_io->bf, metadata={op_name="a(b)"}
}

ENTRY %main (left: f32[64,128], right: bf16[128,256]) -> bf16[64,256] {
  %left = f32[64,128]{1,0:T(8,128)} parameter(0)
  %right = bf16[128,256]{1,0:T(8,128)(2,1)} parameter(1)
  %start = (f32[64,128]{1,0:T(8,128)S(1)}, f32[64,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%left)
  %done = f32[64,128]{1,0:T(8,128)S(1)} copy-done(%start)
  ROOT %fusion = bf16[64,256]{1,0:T(8,128)(2,1)} fusion(%done, %right), kind=kOutput, calls=%fused
}
"""
LEFT, RIGHT, RESULT = 64 * 128 * 4, 128 * 256 * 2, 64 * 256 * 2  # bytes
PRODUCT_FLOPS = 2 * 64 * 128 * 256

# A loop of 5 turns, each a product with one of 5 stacked kernels, whose result is stored in place.
LOOP = """HloModule loop

%read (all: f32[5,8,8], turn: s32[]) -> f32[1,8,8] {
  %all = f32[5,8,8]{2,1,0} parameter(0)
  %turn = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %one = f32[1,8,8]{2,1,0} dynamic-slice(%all, %turn, %zero, %zero), dynamic_slice_sizes={1,8,8}
}

%store (all: f32[5,8,8], value: f32[8,8], turn: s32[]) -> f32[5,8,8] {
  %all = f32[5,8,8]{2,1,0} parameter(0)
  %value = f32[8,8]{1,0} parameter(1)
  %turn = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,8,8]{2,1,0} bitcast(%value)
  ROOT %stored = f32[5,8,8]{2,1,0} dynamic-update-slice(%all, %row, %turn, %zero, %zero)
}

%condition (state: (s32[], f32[8,8], f32[5,8,8], f32[5,8,8])) -> pred[] {
  %state = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) parameter(0)
  %turns = s32[] constant(5)
  %turn = s32[] get-tuple-element(%state), index=0
  ROOT %more = pred[] compare(%turn, %turns), direction=LT
}

%body (state: (s32[], f32[8,8], f32[5,8,8], f32[5,8,8])) -> (s32[], f32[8,8], f32[5,8,8], f32[5,8,8]) {
  %state = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, /*index=3*/f32[5,8,8]{2,1,0}) parameter(0)
  %turn = s32[] get-tuple-element(%state), index=0
  %hidden = f32[8,8]{1,0} get-tuple-element(%state), index=1
  %kernels = f32[5,8,8]{2,1,0} get-tuple-element(%state), index=2
  %outputs = f32[5,8,8]{2,1,0} get-tuple-element(%state), index=3
  %kernel = f32[1,8,8]{2,1,0} fusion(%kernels, %turn), kind=kLoop, calls=%read
  %flat = f32[8,8]{1,0} bitcast(%kernel)
  %next = f32[8,8]{1,0} dot(%hidden, %flat), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %sum = f32[8,8]{1,0} all-reduce(%next), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %kept = f32[5,8,8]{2,1,0} fusion(%outputs, %sum, %turn), kind=kLoop, calls=%store
  ROOT %state_2 = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) tuple(%turn, %sum, %kernels, %kept)
}

ENTRY %main (start: (s32[], f32[8,8], f32[5,8,8], f32[5,8,8])) -> f32[5,8,8] {
  %start = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) parameter(0)
  %loop = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) while(%start), condition=%condition, body=%body
  ROOT %result = f32[5,8,8]{2,1,0} get-tuple-element(%loop), index=3
}
"""
TILE = 8 * 8 * 4  # bytes of one kernel


def entry(*lines: str) -> str:
    """Return a program of one computation with these instructions."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule one\n\nENTRY %main (a: f32[1]) -> f32[1] {{\n{body}\n}}\n"
