import pickle

import background
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import KINDS, cut_starts, equal_mass, sample
from threadpoolctl import threadpool_limits

import twintrack as tt
from twintrack import _core

DTYPES = (np.float16, np.float32, np.float64)


def case(seed=0, shape=(20, 31, 43), raters=5, kind="uniform", dtype=np.float32):
    rng = np.random.default_rng(seed)
    score = sample(rng, int(np.prod(shape)), kind, dtype).reshape(shape)
    labels = [rng.random(shape) < score.astype(float) ** (1 + i) for i in range(raters)]
    return score, labels


def tally(score, labels, region=None):
    return tt.ScoreTally(len(labels)).update(score, labels, region)


@pytest.mark.parametrize("raters", [1, 2, 5, 7, 8, 15])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_every_voxel_and_vote_once(raters, kind):
    score, labels = case(raters=raters, kind=kind)
    made = tally(score, labels)
    assert made.voxels == score.size
    assert made.votes.sum(axis=0).tolist() == [int(rater.sum()) for rater in labels]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_votes_stay_with_their_scores(dtype, kind):
    score, labels = case(kind=kind, dtype=dtype)
    made = tally(score, labels)
    # Each cell's votes are those of the voxels whose scores lie in it: cells are score ranges, so
    # cumulative votes by cell are cumulative votes by sorted score.
    order = np.argsort(score.ravel(), kind="stable")
    ends = np.cumsum(made.counts).astype(int)
    for rater, votes in zip(labels, made.votes.T, strict=True):
        assert np.array_equal(np.cumsum(votes), np.cumsum(rater.ravel()[order])[ends - 1])


def test_same_bytes_for_any_number_of_threads():
    score, labels = case(shape=(70, 80, 90))
    with threadpool_limits(1, "openmp"):
        one = tally(score, labels)
    with threadpool_limits(2, "openmp"):
        two = tally(score, labels)
    with threadpool_limits(7, "openmp"):
        seven = tally(score, labels)
    assert one == two == seven


def test_same_bytes_for_any_chunking():
    score, labels = case(shape=(10, 100, 100), kind="saturated")
    whole = tally(score, labels)
    flat, masks = score.ravel(), [rater.ravel() for rater in labels]
    parts = tt.ScoreTally(5)
    for index in np.array_split(np.arange(flat.size), 1000):
        parts.update(flat[index[0] : index[-1] + 1], [m[index[0] : index[-1] + 1] for m in masks])
    assert parts == whole


@settings(max_examples=25)
@given(st.permutations(range(5)), st.integers(0, 2**32 - 1))
def test_merging_is_associative_and_commutative(order, seed):
    parts = [tally(*case(seed=seed + i, shape=(40,), raters=3, kind=KINDS[i])) for i in range(5)]
    left = tt.ScoreTally(3)
    for i in order:
        left += parts[i]
    right = parts[0] + (parts[1] + (parts[2] + (parts[3] + parts[4])))
    assert left == right


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["F", "mixed", "sliced", "reversed", "transposed"])
def test_same_bytes_for_any_memory_order(dtype, layout):
    score, labels = case(dtype=dtype)
    expected = tally(score, labels)
    if layout == "F":
        score, labels = np.asfortranarray(score), [np.asfortranarray(r) for r in labels]
    elif layout == "mixed":
        labels = [np.asfortranarray(r) if i % 2 else r for i, r in enumerate(labels)]
    elif layout == "sliced":
        room = np.zeros((20, 31, 86), dtype)
        room[..., ::2] = score
        score = room[..., ::2]
    elif layout == "reversed":
        score, labels = score[::-1, :, ::-1], [r[::-1, :, ::-1] for r in labels]
    else:
        score, labels = score.transpose(2, 0, 1), [r.transpose(2, 0, 1) for r in labels]
    assert tally(score, labels) == expected


@pytest.mark.parametrize(
    "label",
    ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i2", ">f4"],
)
def test_labels_of_any_type(label):
    score, labels = case()
    assert tally(score, [rater.astype(label) for rater in labels]) == tally(score, labels)
    assert tally(score, np.stack(labels).astype(label)) == tally(score, labels)


def test_a_region_is_as_leaving_the_rest_out():
    score, labels = case()
    rng = np.random.default_rng(3)
    for region in (
        rng.random(score.shape) < 0.3,
        rng.random(score.shape) < 0.001,
        score >= 0,
        score > 2,
        np.arange(43) < 20,
    ):
        region = np.broadcast_to(region, score.shape)
        rest = tally(score[region], [rater[region] for rater in labels])
        assert tally(score, labels, region) == rest
        assert tally(score, labels, region.astype(np.uint8) * 255) == rest


@pytest.mark.parametrize("labels_as", background.LABELS_AS)
@pytest.mark.parametrize("dtype", background.DTYPES)
def test_background_counts_as_other_voxels_do(dtype, labels_as):
    background.assert_background_counts(tt.ScoreTally, dtype, labels_as)


def test_outside_the_region_anything_goes():
    score, labels = case()
    region = np.zeros(score.shape, bool)
    region[5:10, 5:10] = True
    expected = tally(score, labels, region)
    score[~region] = np.nan
    dirty = [np.where(region, rater, 9) for rater in labels]
    assert tally(score, dirty, region) == expected


def test_every_16_bit_score_has_its_own_cell():
    half = np.arange(0x3C00 + 1, dtype=np.uint16).view(np.float16)
    brain = np.arange(0x3F80 + 1, dtype=np.uint16)
    for score in (
        half,
        half.astype(np.float32),
        half.astype(np.float64),
        brain.view("V2"),
        (brain.astype(np.uint32) << 16).view(np.float32),
    ):
        made = tally(score, [np.zeros(score.shape, bool)])
        assert len(made.cells) == len(score)
        assert np.all(made.counts == 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cells_are_ranges_of_the_distance_to_the_nearer_end(dtype):
    rng = np.random.default_rng(0)
    u = np.concatenate(
        [rng.random(50_000), 10.0 ** rng.uniform(-30, 0, 50_000), 2.0 ** -np.arange(60)]
    )
    score = np.sort(np.concatenate([u, 1 - u, [0, 0.5, 1]]).astype(dtype))
    end = np.minimum(score.astype(np.float64), (1 - score).astype(np.float64))
    mantissa, exponent = np.frexp(end)  # end = mantissa 2^exponent, mantissa in [1/2, 1)
    per_octave = np.where(end < 2.0**-24, 128, 2048)
    step = np.where(end == 0, -1e9, exponent * 4096 + np.floor((mantissa * 2 - 1) * per_octave))
    place = np.where(score > 0.5, 1e9 - step, step)
    _, expected = np.unique(place, return_counts=True)
    made = tally(score, [np.ones(score.shape, bool)])
    assert np.array_equal(made.counts, expected)
    assert np.all(np.diff(made.cells.astype(int)) > 0)


@pytest.mark.parametrize("end", [1e-25, 1e-9, 1e-3, 0.3])
def test_the_mean_of_float64_scores_keeps_their_distance_from_the_end(end):
    rng = np.random.default_rng(0)
    u = end * (1 + rng.random(500) / 100)
    for score, distance in ((u, u), (1 - u, 1 - (1 - u))):
        mean = tally(score, [score > 0]).equal_mass_bins(1).mean_score[0]
        exact = np.mean(distance.astype(np.longdouble))
        got = mean if score is u else 1 - mean
        assert abs(got - exact) <= max(float(exact) * 2.0**-31, 2.0**-53)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.integers(1, 300))
def test_bins_of_16_bit_scores_are_the_rule_itself(seed, kind, bins):
    score, labels = case(seed=seed, shape=(2000,), raters=3, kind=kind, dtype=np.float16)
    made = tally(score, labels).equal_mass_bins(bins)
    count, mean, votes = equal_mass(score, labels, bins)
    assert np.array_equal(made.count, count)
    assert np.array_equal(made.votes, votes)
    np.testing.assert_allclose(made.mean_score, mean, rtol=1e-15, atol=1e-15)
    assert made.asked == bins
    assert len(made) <= bins


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bins_of_wider_scores_are_cut_at_cells_and_their_sums_are_exact(dtype):
    score, labels = case(shape=(60_000,), dtype=dtype)
    made = tally(score, labels).equal_mass_bins(50)
    starts = np.concatenate([[0], np.cumsum(made.count)[:-1]]).astype(int)
    # A cut moves down by the scores of one cell at most: 1/2048 of the distance to the end.
    exact = cut_starts(score, 50)
    assert np.all(starts <= exact)
    assert np.all(exact - starts <= 60_000 / 2048)
    order = np.argsort(score)
    ordered = score[order].astype(np.longdouble)
    mean = np.add.reduceat(ordered, starts) / made.count
    np.testing.assert_allclose(
        made.mean_score, mean.astype(float), rtol=1e-9 if dtype == np.float64 else 1e-15
    )
    for rater, votes in zip(labels, made.votes.T, strict=True):
        assert np.array_equal(votes, np.add.reduceat(rater[order].astype(int), starts))


def test_cuts_between_more_voxels_than_anybody_has():
    """Position k V / M must not overflow on the way."""
    sums = np.zeros((4, 4), np.uint64)
    sums[:, 0] = 2**60
    sums[:, 2] = sums[:, 3] = np.arange(4) * 2**58
    whole = tt.ScoreTally.of_rows(1, {(0,): (np.arange(4, dtype=np.uint32) * 5000, sums)})
    for bins in (4, 8, 100, 2000):
        made = whole.equal_mass_bins(bins)
        assert made.count.tolist() == [2**60] * 4
        assert made.votes.ravel().tolist() == sums[:, 2].tolist()
    assert whole.equal_mass_bins(2).count.tolist() == [2**61] * 2


def test_saves_and_pickles_byte_for_byte(tmp_path):
    made = tally(*case())
    made.save(tmp_path / "t.npz")
    assert tt.ScoreTally.load(tmp_path / "t.npz") == made
    assert pickle.loads(pickle.dumps(made)) == made
    reloaded = pickle.loads(pickle.dumps(made)).update(*case(seed=1))
    assert reloaded == made + tally(*case(seed=1))
    assert [p.name for p in tmp_path.iterdir()] == ["t.npz"]


def test_compact_keeps_everything():
    made = tally(*case())
    copy = made + tt.ScoreTally(5)
    assert made.compact() == copy
    assert made.update(*case(seed=1)) == copy.update(*case(seed=1))


@pytest.mark.parametrize(
    "damage", ["truncate", "text", "missing", "order", "votes", "newer", "pickle"]
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "t.npz"
    made = tally(*case())
    made.save(path)
    stored = dict(np.load(path))
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "text":
        path.write_text("no tally")
    else:
        if damage == "missing":
            del stored["sums"]
        elif damage == "order":
            stored["cells"] = stored["cells"][::-1]
        elif damage == "votes":
            stored["sums"][:, 2] = stored["sums"][:, 0] + 1
        elif damage == "newer":
            stored["format_version"] = np.array(99)
        else:
            stored["cells"] = np.array([{}], dtype=object)
        np.savez(path, **stored)
    with pytest.raises(ValueError, match=r"t\.npz"):
        tt.ScoreTally.load(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.5, 1.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bad_score_is_named_and_leaves_the_tally_alone(bad, dtype):
    score, labels = case(shape=(50, 60, 70), dtype=dtype)
    made = tally(score, labels)
    before = made + tt.ScoreTally(5)
    score[49, 3, 4] = bad
    with pytest.raises(ValueError, match=r"score\[49, 3, 4\] is .*\[0, 1\]"):
        made.update(score, labels)
    assert made == before


@pytest.mark.parametrize("bad", [2, -1, 0.5, np.nan])
def test_a_bad_label_is_named(bad):
    score, labels = case()
    labels[3] = labels[3].astype(float)
    labels[3][7, 8, 9] = bad
    with pytest.raises(ValueError, match=r"raters\[3\]\[7, 8, 9\] is .*; labels must be 0 or 1"):
        tally(score, labels)


def test_the_first_bad_voxel_is_named_whatever_the_threads():
    score, labels = case(shape=(100, 60, 60))
    score[[5, 50, 99], 1, 1] = 2
    for threads in (1, 2, 5):
        with threadpool_limits(threads, "openmp"), pytest.raises(ValueError, match=r"\[5, 1, 1\]"):
            tally(score, labels)


def test_shapes_and_numbers_that_do_not_fit():
    score, labels = case()
    with pytest.raises(ValueError, match=r"raters\[1\] has shape \[20, 31\] but score has"):
        tally(score, [labels[0], labels[1][..., 0]])
    with pytest.raises(ValueError, match="region has shape"):
        tally(score, labels, np.ones(3, bool))
    with pytest.raises(ValueError, match="raters has 4 masks but the tally was made for 5"):
        tt.ScoreTally(5).update(score, labels[:4])
    with pytest.raises(ValueError, match="raters is empty"):
        tt.ScoreTally(5).update(score, [])
    with pytest.raises(ValueError, match="raters is 0"):
        tt.ScoreTally(0)
    with pytest.raises(ValueError, match="5 raters to one of 3"):
        tt.ScoreTally(3).__iadd__(tt.ScoreTally(5))
    with pytest.raises(TypeError, match="int64"):
        tally(score.astype(int), labels)
    with pytest.raises(TypeError, match="complex64"):
        tally(score, [rater.astype(np.complex64) for rater in labels])
    with pytest.raises(ValueError, match=r"region\[0, 0, 1\] is 0\.2.* but a voxel"):
        tally(score, labels, score)


def test_empty_tallies_have_no_bins():
    empty = tt.ScoreTally(2).update(np.empty((0, 3), np.float32), np.empty((2, 0, 3), bool))
    assert empty.voxels == 0
    with pytest.raises(ValueError, match="no voxels"):
        empty.equal_mass_bins(10)
    with pytest.raises(ValueError, match="bins is 0"):
        empty.equal_mass_bins(0)


def test_what_was_added_can_be_taken_away():
    """Exactly: also cells that only the part has, in fresh memory and in memory used again."""
    rng = np.random.default_rng(0)
    parts = []
    for voxels in (0, 50, 5000, 3000):
        score = rng.random(voxels)
        marks = rng.random(voxels) < score
        some = tt.ScoreTally(2).update(score, [marks, marks])
        parts.append(some.update(score[::2], [None, marks[::2]]))
    total = tt.ScoreTally.of_all(parts)
    memory = {}
    for k, part in enumerate(parts):
        rest = tt.ScoreTally.of_all(parts[:k] + parts[k + 1 :])
        assert total - part == rest
        assert total.minus(part, memory) == rest
    assert total == tt.ScoreTally.of_all(parts)
    assert (total - total).voxels == 0


def test_what_is_no_part_is_not_taken_away():
    def tally(score, *marks):
        return tt.ScoreTally(len(marks)).update(np.array(score), [np.array([m]) for m in marks])

    total = tally([0.5], 1, 0)
    for other in (tally([0.25], 1, 0), tally([0.5], 0, 1), total + total):
        with pytest.raises(tt.InputError, match="no part of this tally"):
            _ = total - other


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_of_cells_are_the_means_of_bins_of_one_cell(dtype):
    """Listed or one after the other, in columns of any width; where nobody is, within the cell."""
    rng = np.random.default_rng(2)
    score = np.concatenate([rng.random(3000) ** 9, 1 - rng.random(3000) ** 9, [0, 0.5, 1]])
    one = tally(score.astype(dtype), [np.zeros(score.size, np.uint8)])
    want = one.equal_mass_bins(1 << 62).mean_score
    (rows,) = one.cell_rows().values()
    assert np.array_equal(rows.score, want)
    every = np.zeros((2, _core.GRID_CELLS), np.uint64)
    every[:, one.cells] = next(iter(one.set_rows().values()))[1][:, :2].T
    dense = _core.cell_scores(0, every[0].astype(np.uint16), every[1])
    assert np.array_equal(dense[one.cells], want)
    assert np.all(np.diff(dense) >= 0)
    with pytest.raises(ValueError, match="cells has one that is not of the score grid"):
        _core.cell_scores(1, every[0], every[1])
