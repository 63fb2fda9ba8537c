"""What benchmarks/sass.py finds in machine code, on a kernel of a few lines."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

# A loop around a load of voxels: the way of voxels that are skipped (to 0x90), the way that adds
# (0x40 to 0x60), and the rare one (0x70 and an inner loop at 0x80). Before it one without voxels.
LISTING = """
        Function : kernel
        /*0000*/                   S2R R0, SR_TID.X ;          /* 0x0000000000000000 */
                                                               /* 0x0000000000000000 */
        /*0010*/              @!P0 BRA 0x0 ;
        /*0020*/                   LDG.E.EF.128 R4, desc[UR4][R2.64] ;
        /*0030*/               @P1 BRA 0x90 ;
        /*0040*/                   IADD3 R5, R4, 0x1, RZ ;
        /*0050*/                   ATOMS.ADD R6, [R5], R4 ;
        /*0060*/              @!P2 BRA 0x90 ;
        /*0070*/                   ATOMS.ADD RZ, [R5+0x4], R4 ;
        /*0080*/               @P3 BRA 0x80 ;
        /*0090*/                   BRA.DIV UR4, 0xc0 ;
        /*00a0*/               @P4 BRA 0x20 ;
        /*00b0*/                   EXIT ;
        /*00c0*/                   WARPSYNC.COLLECTIVE R1, 0xd0 ;
        /*00d0*/                   BRA 0xa0 ;
        Function : straight
        /*0000*/                   LDG.E.EF R4, desc[UR4][R2.64] ;
        /*0010*/                   EXIT ;
"""


@pytest.fixture
def sass(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("sass")


def test_instructions_are_read_with_predicates_and_targets(sass):
    functions = sass.parse(LISTING)
    assert list(functions) == ["kernel", "straight"]
    kernel = functions["kernel"]
    assert len(kernel) == 14
    assert (kernel[1].predicate, kernel[1].opcode, kernel[1].target) == ("!P0", "BRA", 0)
    assert [at for at, here in enumerate(kernel) if here.streams] == [2]
    # Not the one whose former value nobody looks at.
    assert [at for at, here in enumerate(kernel) if here.counts] == [5]
    assert kernel[9].target is None  # where a warp has come apart
    assert [at for at, here in enumerate(kernel) if here.always_jumps] == [13]


def test_the_hot_loop_is_the_one_of_the_voxels_and_counted_in_three_ways(sass):
    functions = sass.parse(LISTING)
    # 0x20, 0x30, 0x90, 0xa0; with 0x40, 0x50 and 0x60; with the rare ones.
    assert sass.hot_loop(functions["kernel"]) == sass.Loop(least=4, varied=7, all=9)
    assert sass.hot_loop(functions["straight"]) is None


@pytest.mark.parametrize(
    ("kernel", "voxels", "traffic"),
    [
        ("count_scores<PackedVoxels<float>, 5>", 4, 9),
        ("count_case_voxels<bfloat16, 3, true>", 4, 5),
        ("count_case_voxels<double, 7, false>", 4, 15),
        ("map_packed<NodeRule<double, true> >", 8, 16),
        ("map_packed<LookUpRule>", 32, 4),
    ],
)
def test_voxels_and_bytes_follow_from_the_name(sass, kernel, voxels, traffic):
    assert sass.shape_of(kernel) == (voxels, traffic)


def test_the_bound_is_a_share_of_a_copy(sass):
    loop = sass.Loop(least=40, varied=400, all=800)
    row = sass.Row("a", 32, 0, 0, 900, voxels=4, loop=loop, traffic=9)
    # 100 instructions a voxel: 132 × 128 × 1.98e9 / 100 voxels a second of 9 bytes, of 4.8e12.
    assert row.bound == pytest.approx(0.627, abs=0.001)
    text = sass.table([row])
    assert "| `a` | 32 | 0 | 0 | 900 | 10 | 100 | 200 | 63% |" in text
    assert sass.Row("b", 32, 0, 0, 900).bound is None
