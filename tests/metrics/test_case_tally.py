import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import background
import numpy as np
import pytest
from case_reference import THRESHOLDS, expected, to_bfloat16
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from twintrack import _core
from twintrack.arrays.case import open_case
from twintrack.metrics import CaseTally, reliability_curve
from twintrack.metrics.ece import expected_error_per_rater
from twintrack.metrics.tdsc import THRESHOLDS as OURS

KINDS = ("uniform", "background", "zeros", "traps")
DTYPES = ("float16", "bfloat16", "float32", "float64")


def traps(dtype):
    """Scores at, just below and just above everything that divides [0, 1]."""
    edges = _core.uniform_bin_edges(50).astype(np.float64)
    exact = np.concatenate([edges, 1 - edges, THRESHOLDS, [0.5, 2.0**-24, 2.0**-25, 1e-8, 1e-40]])
    at = np.clip(exact, 0, 1).astype(np.float32 if dtype == "bfloat16" else dtype)
    if dtype == "bfloat16":
        at = to_bfloat16(at)
        step = np.uint32(1 << 16)
        near = [np.maximum(at.view(np.uint32), step) - step, at.view(np.uint32) + step]
        values = np.concatenate([at, *(bits.view(np.float32) for bits in near), [-0.0]])
    else:
        up, down = np.nextafter(at, at.dtype.type(2)), np.nextafter(at, at.dtype.type(-1))
        values = np.concatenate([at, up, down, [at.dtype.type(-0.0)]])
    return values[(values >= 0) & (values <= 1)].astype(at.dtype)


def make(seed=0, shape=(9, 11, 13), raters=5, kind="uniform", dtype="float32"):
    """A case: scores whose values have the dtype (float32 for bfloat16), and labels."""
    rng = np.random.default_rng(seed)
    u = rng.random(shape)
    if kind == "background":
        u = np.where(rng.random(shape) < 0.9, u**6 * 1e-3, u)
    elif kind == "zeros":
        u = np.where(rng.random(shape) < 0.9, 0.0, u)
        u[: shape[0] // 2] = 0
    if kind == "traps":
        p = rng.choice(traps(dtype), shape)
    else:
        p = to_bfloat16(u.astype(np.float32)) if dtype == "bfloat16" else u.astype(dtype)
    labels = np.stack([rng.random(shape) < p.astype(float) ** (1 + k % 3) for k in range(raters)])
    return p, labels


def given_array(p, dtype):
    """The array as it is handed over: bfloat16 as its upper two bytes."""
    return (p.view(np.uint32) >> 16).astype(np.uint16).view("V2") if dtype == "bfloat16" else p


def assert_holds(tally, want, voxels):
    np.testing.assert_array_equal(tally.votes, want.votes)
    assert tally.voxels == voxels
    # A score is rounded to a multiple of 2^-46; the reference's float64 sums are a little worse.
    bound = voxels * 2.0**-46 + 1e-12 * voxels
    for bins, (count, total, votes) in (
        (tally.score_bins, want.score_bins),
        (tally.confidence_bins, want.confidence_bins),
    ):
        np.testing.assert_array_equal(bins.count, count)
        np.testing.assert_array_equal(bins.votes, votes)
        np.testing.assert_allclose(bins.total, total, rtol=0, atol=bound)
    assert tally.squared_scores == pytest.approx(want.squares, abs=bound)
    np.testing.assert_allclose(tally.rater_scores, want.rater_scores, rtol=0, atol=bound)
    np.testing.assert_array_equal(tally.rater_voxels, want.score_bins[2].sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_holds_what_the_protocol_asks_of_every_voxel(dtype, kind):
    p, labels = make(kind=kind, dtype=dtype, shape=(17, 19, 23))
    tally = CaseTally(5).update(given_array(p, dtype), labels)
    assert_holds(tally, expected(p, labels, bfloat16=dtype == "bfloat16"), p.size)


@pytest.mark.parametrize("raters", [1, 2, 3, 4, 7, 8, 9, 15])
def test_any_number_of_raters(raters):
    p, labels = make(raters, raters=raters, kind="zeros")
    assert_holds(CaseTally(raters).update(p, labels), expected(p, labels), p.size)


@pytest.mark.parametrize("bins", [1, 2, 5, 7, 15, 100, 1000])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_any_number_of_bins(bins, dtype):
    # bfloat16 with 1000 bins: bins narrower than the spacing of confidences.
    p, labels = make(bins, kind="background", dtype=dtype, raters=2)
    tally = CaseTally(2, bins).update(given_array(p, dtype), labels)
    assert_holds(tally, expected(p, labels, bins, dtype == "bfloat16"), p.size)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    extent=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40)),
    raters=st.integers(1, 9),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(DTYPES),
    order=st.permutations((0, 1, 2)),
    step=st.sampled_from((-1, 1, 2)),
)
def test_any_case_in_any_memory_layout(seed, extent, raters, kind, dtype, order, step):
    p, labels = make(seed, extent, raters, kind, dtype)
    score = given_array(p, dtype).transpose(order)[..., ::step]
    views = [mask.transpose(order)[..., ::step] for mask in labels]
    tally = CaseTally(raters)
    ranges = tally.add_and_overview(open_case(score, views)).marked
    want = expected(p.transpose(order)[..., ::step], views, bfloat16=dtype == "bfloat16")
    assert_holds(tally, want, score.size)
    assert ranges == want.ranges


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("marked", [(0, 0, 0), (3, 66, 41), (29, 0, 89), None])
def test_finds_the_range_of_marks(order, marked):
    score = np.zeros((30, 70, 90), np.float32, order)
    raters = [np.zeros_like(score, np.uint8) for _ in range(2)]
    if marked is not None:
        raters[0][marked] = raters[1][15, 20, 60] = 1
    ranges = CaseTally(2).add_and_overview(open_case(score, raters)).marked
    assert ranges == expected(score, raters).ranges


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tells_which_blocks_hold_a_score(order, dtype):
    # 30 × 70 × 90 voxels are 185 blocks of 1024, the last of them not full.
    score = np.zeros((30, 70, 90), dtype, order)
    raters = [np.zeros_like(score, np.uint8)]
    memory = score.ravel(order="K")
    assert np.shares_memory(memory, score)
    memory[[1023, 70_000, memory.size - 1]] = 1e-7, 0.5, 1
    scored = CaseTally(1).add_and_overview(open_case(score, raters)).scored
    assert np.flatnonzero(scored).tolist() == [0, 70_000 // 1024, 184]
    assert len(scored) == 185
    gaps = CaseTally(1).add_and_overview(open_case(score[:, ::2], [raters[0][:, ::2]]))
    backwards = CaseTally(1).add_and_overview(open_case(score[::-1], [raters[0][::-1]]))
    assert gaps.scored is None
    assert backwards.scored is None


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_for_any_threads_and_chunks(kind):
    p, labels = make(shape=(60, 70, 80), kind=kind)
    made = []
    for threads in (1, 2, 7):
        with threadpool_limits(threads, "openmp"):
            made.append(CaseTally(5).update(p, labels))
    chunked = CaseTally(5)
    for first, last in ((33, 60), (0, 1), (1, 33)):
        chunked.update(p[first:last], labels[:, first:last])
    added = sum(
        (CaseTally(5).update(p[:, k::3], labels[:, :, k::3]) for k in range(3)), CaseTally(5)
    )
    fortran = CaseTally(5).update(
        np.asfortranarray(p), [np.ascontiguousarray(m.T).T for m in labels]
    )
    assert made[0] == made[1] == made[2] == chunked == added == fortran
    assert pickle.loads(pickle.dumps(chunked)) == made[0]
    assert made[0] != CaseTally(5)


_STATE = """
import json, sys
sys.path[:0] = sys.argv[1:]
from test_case_tally import KINDS, make
from twintrack import _core
from twintrack.arrays.case import open_case
from twintrack.metrics import CaseTally
tallies = [CaseTally(5).update(*make(shape=(30, 40, 50), kind=kind, dtype=dtype))
           for kind in KINDS for dtype in ("float32", "float64")]
sums = [t.by_set()[0, 1, 2, 3, 4].sums.tolist() for t in tallies]
print(json.dumps([_core.instruction_set(), sums]))
"""


def test_same_bits_for_every_instruction_set():
    found = {}
    for wanted in ("baseline", _core.instruction_set()):
        environment = os.environ | {"TWINTRACK_INSTRUCTION_SET": wanted}
        run = subprocess.run(
            [sys.executable, "-c", _STATE, *map(str, Path(__file__).parents[:2])],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        used, state = json.loads(run.stdout)
        assert used == wanted
        found[wanted] = state
    assert len({json.dumps(state) for state in found.values()}) == 1


def test_only_the_region_counts():
    p, labels = make(kind="background", shape=(40, 50, 60))
    region = np.zeros(p.shape, bool)
    region[5:20, :, 7:50:3] = True
    outside = p.copy()
    outside[~region] = np.nan  # not looked at
    tally = CaseTally(5).update(outside, labels, region)
    assert_holds(tally, expected(p[region], labels[:, region]), np.count_nonzero(region))
    assert CaseTally(5).update(p, labels, np.ones_like(region)) == CaseTally(5).update(p, labels)
    assert CaseTally(5).update(p, labels, np.zeros_like(region)).voxels == 0


@pytest.mark.parametrize("labels_as", background.LABELS_AS)
@pytest.mark.parametrize("dtype", background.DTYPES)
def test_background_counts_as_other_voxels_do(dtype, labels_as):
    background.assert_background_counts(CaseTally, dtype, labels_as)


def test_counts_beyond_what_float32_can():
    # 2^24 + 5 voxels of one value in one bin, without memory for them: strides of 0.
    voxels = 2**24 + 5
    score = np.broadcast_to(np.float32(0.9), (voxels,))
    marks = np.broadcast_to(np.uint8(1), (voxels,))
    tally = CaseTally(1).update(score, [marks])
    assert tally.confidence_bins.count.tolist() == [0] * 45 + [voxels] + [0] * 5
    assert tally.predicted_voxels == voxels * float(np.float32(0.9))
    assert tally.rater_scores[0] == tally.predicted_voxels


def test_sums_of_cases_stay_exact():
    p, labels = make(kind="background", raters=3)
    tally = CaseTally(3).update(p, labels)
    once = tally + CaseTally(3)
    for _ in range(40):
        tally += tally
    times = 2**40
    assert tally.voxels == times * p.size  # more than 2^50
    np.testing.assert_array_equal(tally.votes, once.votes * np.uint64(times))
    np.testing.assert_array_equal(tally.score_bins.total, once.score_bins.total * times)
    np.testing.assert_array_equal(
        expected_error_per_rater(tally.confidence_bins),
        expected_error_per_rater(once.confidence_bins),
    )
    assert tally.squared_scores == once.squared_scores * times


def test_tallies_of_other_raters_or_bins_are_not_equal():
    # These two hold equally many sums, all 0.
    one, other = CaseTally(1, 6), CaseTally(2, 4)
    assert len(one.by_set()[0,].sums) == len(other.by_set()[0, 1].sums)
    assert one != other
    assert one == CaseTally(1, 6)


def test_adding_refuses_other_raters_or_bins():
    for other in (CaseTally(4), CaseTally(5, 49)):
        tally = CaseTally(5)
        with pytest.raises(ValueError, match="cannot add a tally of"):
            tally += other


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, y: p.__setitem__((3, 4, 5), np.nan), r"score\[3, 4, 5\] is nan"),
        (lambda p, y: p.__setitem__((0, 0, 1), 1.000002), r"score\[0, 0, 1\] is 1.00000"),
        (
            lambda p, y: p.__setitem__((8, 0, 0), -2e-6),
            r"score\[8, 0, 0\] is -2e-06|score\[8, 0, 0\] is -1.99999",
        ),
        (lambda p, y: y.__setitem__((1, 2, 0, 7), 2), r"raters\[1\]\[2, 0, 7\] is 2"),
    ],
)
def test_bad_voxels_are_named_and_nothing_is_added(spoil, message):
    p, labels = make(raters=2)
    tally = CaseTally(2).update(p, labels)
    before = pickle.dumps(tally)
    labels = labels.astype(np.uint8)
    spoil(p, labels)
    with pytest.raises(ValueError, match=message):
        tally.update(p, labels)
    with pytest.raises(ValueError, match=message):
        tally.add_and_overview(open_case(p, labels))
    assert pickle.dumps(tally) == before


def test_bad_arguments_are_named():
    p, labels = make(raters=2)
    tally = CaseTally(2)
    with pytest.raises(ValueError, match="raters has 1 masks but the tally was made for 2"):
        tally.update(p, labels[:1])
    with pytest.raises(ValueError, match=r"raters\[1\] has shape"):
        tally.update(p, [labels[0], labels[1][:-1]])
    with pytest.raises(TypeError, match="score has dtype int"):
        tally.update(p.astype(int), labels)
    for raters in (0, 256):
        with pytest.raises(ValueError, match=f"raters is {raters}"):
            CaseTally(raters)
    for bins in (0, 1001):
        with pytest.raises(ValueError, match=f"bins is {bins}"):
            CaseTally(1, bins)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (0,), (4, 0, 3), (5,), (2, 3, 4, 5)])
def test_any_number_of_dimensions(shape):
    rng = np.random.default_rng(1)
    p = np.asarray(rng.random(shape), np.float32)
    labels = [np.asarray(rng.random(shape) < 0.5)]
    tally = CaseTally(1)
    ranges = tally.add_and_overview(open_case(p, labels)).marked
    if p.size == 0:
        assert tally.voxels == 0
        assert ranges == ()
        return
    assert_holds(tally, expected(p, labels), p.size)
    assert bool(ranges) == (bool(labels[0].any()) and p.ndim > 0)


def test_thresholds_are_numpys():
    np.testing.assert_array_equal(OURS, THRESHOLDS)


def test_edges_are_those_of_torch():
    # torch.linspace(0, 1, 51), torch 2.15, in ulps from the float32 nearest to k / 50.
    recorded = {5: -1, 9: -1, 10: -1, 15: -1, 18: -1, 20: -1, 23: -1, 39: 1, 42: 1}
    edges, nearest = _core.uniform_bin_edges(50), (np.arange(51) / 50).astype(np.float32)
    ulps = edges.view(np.int32) - nearest.view(np.int32)
    assert {k: int(d) for k, d in enumerate(ulps) if d} == recorded


def test_reliability_curve():
    p, labels = make(kind="traps", shape=(20, 30, 40))
    region = p > 0.05
    curve = reliability_curve(p, labels, bins=10, region=region)
    place = np.minimum(np.searchsorted(_core.uniform_bin_edges(10), p[region], "right") - 1, 9)
    count = np.bincount(place, minlength=10)
    np.testing.assert_array_equal(curve.count, count)
    mhr = labels.mean(axis=0)[region]
    np.testing.assert_allclose(curve.mhr, np.bincount(place, mhr) / count, rtol=1e-12)
    mean = np.bincount(place, p[region].astype(np.float64)) / count
    np.testing.assert_allclose(curve.mean_score, mean, rtol=1e-12)
    np.testing.assert_allclose(curve.rater_rates.mean(axis=1), curve.mhr, rtol=1e-12)


def small_tally(seed=0, bins=50):
    rng = np.random.default_rng(seed)
    score = rng.random((7, 6, 5), np.float32)
    return CaseTally(3, bins).update(score, [rng.random(score.shape) < score for _ in range(3)])


@pytest.mark.parametrize("bins", [50, 7])
def test_saved_and_pickled_tallies_come_back_and_can_be_added_to(tmp_path, bins):
    tally = small_tally(0, bins)
    expected = tally + small_tally(1, bins)
    tally.save(tmp_path / "t.npz")
    for copy in (CaseTally.load(tmp_path / "t.npz"), pickle.loads(pickle.dumps(tally))):
        assert copy == tally
        assert copy + small_tally(1, bins) == expected
        assert copy.squared_scores == tally.squared_scores


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": np.array("twintrack-score-tally")}, "not a case tally"),
        ({"format_version": np.array(3)}, "update TwinTrack"),
        ({"bins": np.array(2**40)}, "score_bins"),
        ({"bins": np.array([1, 2])}, ""),
        ({"squares": None}, "squares missing"),
        ({"rater_scores": np.zeros((3, 2), np.int64)}, "rater_scores"),
    ],
)
def test_file_that_is_no_case_tally_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "t.npz"
    small_tally().save(path)
    with np.load(path) as stored:
        found = {**stored, **change}
    np.savez(path, **{name: value for name, value in found.items() if value is not None})
    with pytest.raises(ValueError, match=rf"t\.npz.*{message}"):
        CaseTally.load(path)


def test_missing_case_tally_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"t\.npz"):
        CaseTally.load(tmp_path / "t.npz")
