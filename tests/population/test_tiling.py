"""Bytes of tiles: a hand-made program, and one that XLA compiles for a TPU."""

import pytest

from tinyjax.population import tiling

# 8 x 16 images of 5 x 5 with 24 channels, in a loop; %small stays in the chip's memory.
HLO = """\
HloModule jit_step, is_scheduled=true

%fused (p: bf16[8,16]) -> bf16[8,16] {
  ROOT %p.1 = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
}

%body (arg: (s32[], bf16[16,5,5,24])) -> (s32[], bf16[16,5,5,24]) {
  %arg = (s32[]{:T(128)}, bf16[16,5,5,24]{3,0,2,1:T(8,128)(2,1)}) parameter(0)
  %x = bf16[16,5,5,24]{3,0,2,1:T(8,128)(2,1)} get-tuple-element(%arg), index=1
  %conv = f32[16,5,5,24]{3,0,2,1:T(8,128)} fusion(%x), kind=kOutput, calls=%fused, \
metadata={op_name="jit(step)/transpose(jvp(Model))/stage1/block0/cond/branch_0_fun/conv"}
  ROOT %out = (s32[]{:T(128)}, f32[16,5,5,24]{3,0,2,1:T(8,128)}) tuple(%arg, %conv)
}

ENTRY %main (a: f32[3,130]) -> f32[3,130] {
  %a = f32[3,130]{1,0:T(8,128)} parameter(0)
  %small = f32[3,130]{1,0:T(4,128)S(1)} copy(%a)
  %loop = (s32[]{:T(128)}, bf16[16,5,5,24]{3,0,2,1:T(8,128)(2,1)}) while(%t), body=%body
  ROOT %sum = f32[3,130]{1,0:T(8,128)} add(%small, %a), metadata={op_name="jit(step)/add"}
}
"""


def test_bytes_of_each_operation():
    copy, conv, add = tiling.read_operations(HLO)
    assert (copy.name, conv.name, add.name) == ("copy", "fusion", "add")
    values, tiled = 3 * 130 * 4, 8 * 256 * 4
    assert (copy.logical, copy.padded) == (values, tiled)  # reads %a, writes no device memory
    assert (add.logical, add.padded) == (2 * values, 2 * tiled)
    # 24 channels take 128 lanes, in float32 and in bfloat16
    pixels = 16 * 5 * 5
    assert (conv.logical, conv.padded) == (pixels * 24 * (2 + 4), pixels * 128 * (2 + 4))
    assert tiling.logical_and_padded([copy, conv, add]) == (
        3 * values + conv.logical,
        3 * tiled + conv.padded,
    )
    assert tiling.most_wasteful([copy, conv, add], 2) == [conv, add]


def test_a_slice_that_is_written_in_place():
    hlo = """\
ENTRY %main (a: f32[3,130]) -> f32[3,130] {
  %a = f32[3,130]{1,0:T(8,128)} parameter(0)
  %b = f32[1,130]{1,0:T(1,128)} parameter(1)
  ROOT %c = f32[3,130]{1,0:T(8,128)} dynamic-update-slice(%a, %b, %i, %i)
}
"""
    (write,) = tiling.read_operations(hlo)
    assert (write.logical, write.padded) == (2 * 130 * 4, 2 * 256 * 4)


def test_float32_arrays_of_a_program_in_bfloat16():
    operations = tiling.read_operations(HLO)
    assert tiling.large_float32_arrays(operations) == []  # it writes no array in bfloat16
    written = tiling.read_operations(
        HLO.replace("%small = f32", "%small = bf16").replace("S(1)", "")
    )
    assert [(array.shape, op.name) for array, op in tiling.large_float32_arrays(written)] == [
        ((16, 5, 5, 24), "fusion"),
        ((3, 130), "add"),
    ]


def test_description():
    first, *most, last = tiling.describe(tiling.read_operations(HLO))
    assert first == "0.00 GB of arrays in tiles, 5.33 times their values; most padding:"
    assert most[0] == "  0.2 of 0.3 MB: stage1/block0/conv (fusion, backward)"
    assert last == "  0.0 of 0.0 MB: unknown (copy)"
    assert tiling.describe([])[0].startswith("0.00 GB of arrays in tiles")


@pytest.mark.parametrize(
    ("array", "padded"),
    [
        ("f32[]", 4),
        ("f32[100]{0:T(128)}", 4 * 128),
        ("u8[5,7]{0,1:T(8,128)(4,1)}", 8 * 128),  # 5 is the minor axis
        ("bf16[3,40,40,8]{1,3,2,0:T(8,128)(2,1)}", 2 * 3 * 40 * 8 * 128),
        ("pred[2,3]{1,0}", 6),
    ],
)
def test_padded_bytes_of_an_array(array, padded):
    text = f"ENTRY %main (a: s32[]) -> s32[] {{\n  ROOT %r = {array} iota()\n}}\n"
    (operation,) = tiling.read_operations(text)
    assert operation.padded == padded


def test_program_for_a_tpu():
    """128 images of 16 channels fill the lanes, 16 do not."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from tinyjax import preflight

    (chip,) = preflight.find_target("v5litepod-1").devices

    def ratio(batch):
        shape = (batch, 16, 16, 16)
        x = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=SingleDeviceSharding(chip))
        compiled = jax.jit(lambda x: jnp.tanh(x) + 1).trace(x).lower().compile()
        logical, padded = tiling.logical_and_padded(tiling.read_operations(compiled.as_text()))
        assert logical == 2 * 2 * batch * 16**3
        return padded / logical

    assert ratio(128) == 1
    assert ratio(16) == 8
