"""The number of bins by cross-validation, and maps without bins."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import twintrack as tt
from twintrack import _core
from twintrack.calibration import calibrator_file
from twintrack.calibration.bin_choice import choose_bins
from twintrack.calibration.equal_mass import EVERY_CELL


def cohort(cases=6, shape=(16, 17, 18), raters=3, dtype=np.float32, seed=0):
    """Scores, and raters who agree with score^2 more or less from case to case."""
    rng = np.random.default_rng(seed)
    scores = [rng.random(shape).astype(dtype) for _ in range(cases)]
    labels = [
        [rng.random(shape) < score.astype(float) ** (1.5 + i / cases) for _ in range(raters)]
        for i, score in enumerate(scores)
    ]
    return scores, labels


def test_auto_bins_are_chosen_by_cross_validation():
    scores, labels = cohort(5)
    fitted = tt.Calibrator(bins="auto", seed=1).fit(scores, labels)
    choice = fitted.bin_choice_
    assert choice.scores[choice.best] == min(choice.scores.values())
    assert fitted.bins_.asked == choice.bins
    # The score of one M by hand: leave one case out, map the held-out voxels, compare with labels.
    by_hand = 0.0
    for held in range(5):
        rest = [i for i in range(5) if i != held]
        part = tt.Calibrator(bins=50).fit([scores[i] for i in rest], [labels[i] for i in rest])
        m = part.transform(scores[held].astype(np.float64))
        by_hand += np.mean([(m - rater) ** 2 for rater in labels[held]]) / 5
    assert choice.scores[50] == pytest.approx(by_hand, rel=1e-5)
    assert tt.Calibrator(bins="auto", seed=1).fit(scores, labels).map_ == fitted.map_
    with pytest.raises(ValueError, match="at least two cases"):
        tt.Calibrator(bins="auto").fit(scores[0], labels[0])


def test_of_several_numbers_of_bins_with_one_score_the_least_is_chosen():
    rng = np.random.default_rng(0)
    scores = [rng.choice([0.125, 0.5, 0.75], 3000).astype(np.float32) for _ in range(3)]
    labels = [[rng.random(score.size) < score**2] for score in scores]
    choice = tt.Calibrator(bins="auto").fit(scores, labels).bin_choice_
    assert len(set(choice.scores.values())) == 1  # three scores make three bins, however many are
    assert choice.bins == choice.best == 5


@pytest.mark.parametrize(("target", "rater"), [("mhr", 0), ("single", 2), ("hard", 0)])
def test_folds_and_their_scores_by_hand(target, rater):
    """Every target has its own maps and answers; cases without voxels say nothing."""
    scores, labels = cohort(6, dtype=np.float16)  # of which every cell holds a single value
    labels = [[first, second, first | third] for first, second, third in labels]
    regions = [None] * 5 + [np.zeros(scores[5].shape, bool)]
    parameters = {"target": target, "rater": rater}
    fitted = tt.Calibrator(bins="auto", folds=3, seed=7, **parameters).fit(scores, labels, regions)
    order = np.random.default_rng(7).permutation(6)
    loss = voxels = 0
    for fold in range(3):
        held = set(order[fold::3])
        rest = [k for k in range(6) if k not in held]
        part = tt.Calibrator(bins=50, **parameters)
        part.fit(*([of[k] for k in rest] for of in (scores, labels, regions)))
        for case in held - {5}:
            m = part.transform(scores[case].astype(np.float64))
            answers = labels[case] if target != "single" else [labels[case][rater]]
            loss += sum(np.mean([(m - answer) ** 2 for answer in answers], axis=0).ravel())
            voxels += m.size
    assert fitted.bin_choice_.scores[50] == pytest.approx(loss / voxels, rel=1e-9)
    assert fitted.bin_choice_.folds == 3


def test_more_folds_than_cases_leave_one_out():
    scores, labels = cohort(3)
    five, three = (tt.Calibrator(bins="auto", folds=k).fit(scores, labels) for k in (5, 3))
    assert five.bin_choice_ == three.bin_choice_
    assert five.bin_choice_.folds == 3
    # One of two cases without voxels: its fold has nothing to be scored on, the other no map.
    with pytest.raises(ValueError, match="only one case has voxels in the region"):
        tt.Calibrator(bins="auto").fit(
            scores[:2], labels[:2], [None, np.zeros(scores[1].shape, bool)]
        )


def like_a_ct(seed, voxels=40_000):
    """Tally of a case of which 1.5% are tumour, with scores that crowd near 1 and say too much."""
    rng = np.random.default_rng(seed)
    score = np.float32(1e-3 * rng.random(voxels))
    tumour = slice(0, voxels * 15 // 1000)
    score[tumour] = rng.random(score[tumour].size) ** 0.2
    truth = np.where(score > 0.1, score ** (6 + seed % 3), 0)
    return tt.ScoreTally(3).update(score, list(rng.random((3, voxels)) < truth))


def test_what_is_chosen_does_not_cap_the_map():
    tallies = [like_a_ct(seed) for seed in range(8)]
    choice = choose_bins(tallies, "mhr", 0, 4, 0)
    total = tt.ScoreTally.of_all(tallies)
    made = tt.Calibrator(bins=choice.bins).add_tally(total)
    assert made.facts_.top > 0.8
    assert made.facts_.off_cells < 0.01
    capped = tt.Calibrator(bins=100).add_tally(total)
    assert capped.facts_.top < 0.8
    assert choice.scores[100] - choice.scores[choice.best] > 3 * choice.standard_errors[100]


def test_the_fewest_bins_within_one_standard_error_by_hand():
    tallies = [like_a_ct(seed) for seed in range(5)]
    numbers = (20, 100, 500, 2000, 5000, "cells")
    choice = choose_bins(tallies, "mhr", 0, 5, 0, numbers)
    losses = np.zeros((len(numbers), 5))
    for held, tally in enumerate(tallies):
        rest = tt.ScoreTally.of_all([t for k, t in enumerate(tallies) if k != held])
        cells = tally.equal_mass_bins(EVERY_CELL)
        for row, bins in enumerate(numbers):
            m = tt.Calibrator(bins=bins).add_tally(rest).map_(cells.mean_score)
            votes = cells.votes.sum(axis=1)
            squares = votes * (m - 1) ** 2 + (3 * cells.count - votes) * m**2
            losses[row, held] = squares.sum() / 3
    means = losses.mean(axis=1) / 40_000  # the folds are equally large
    np.testing.assert_allclose(list(choice.scores.values()), means, rtol=1e-9)
    differences = (losses - losses[means.argmin()]) / 40_000
    errors = differences.std(axis=1, ddof=1) / math.sqrt(5)
    np.testing.assert_allclose(list(choice.standard_errors.values()), errors, atol=1e-15)
    within = means - means.min() <= errors
    assert choice.best == numbers[means.argmin()]
    assert choice.bins == numbers[int(np.argmax(within))]
    assert choice.bins != choice.best


def test_votes_that_held_out_cases_have_where_the_map_is_0():
    """A tumour that the network missed in one case: the others' maps send its votes to 0."""
    tallies = [like_a_ct(seed, 10_000) for seed in range(3)]
    missed = tt.ScoreTally(3).update(np.full(50, 1e-5, np.float32), [np.ones(50, bool)] * 3)
    choice = choose_bins([*tallies, missed], "mhr", 0, 4, 0, (100, "cells"))
    votes = sum(int(tally.votes.sum()) for tally in tallies) + 150
    assert choice.zero_votes[100] == pytest.approx(150 / votes)
    assert choice.zero_votes["cells"] >= choice.zero_votes[100]


def test_the_order_of_cases_decides_nothing_but_the_folds():
    tallies = [like_a_ct(seed, 5_000) for seed in range(4)]
    forwards = choose_bins(tallies, "mhr", 0, 4, 0)
    assert choose_bins(tallies[::-1], "mhr", 0, 4, 0) == forwards  # one case a fold


def test_a_choice_is_in_the_file(tmp_path):
    calibrator = tt.Calibrator(bins="auto", folds=3)
    for seed in range(3):
        calibrator.add_tally(like_a_ct(seed, 5_000), f"case {seed}")
    calibrator.save(tmp_path / "c.json")
    choice = calibrator.bin_choice_
    said = json.loads((tmp_path / "c.json").read_text())["cross_validation"]
    assert (said["folds"], said["chosen"], said["best"]) == (3, choice.bins, choice.best)
    for name in ("scores", "standard_errors", "zero_votes"):
        assert said[name] == {str(k): v for k, v in getattr(choice, name).items()}


# --- without bins ---------------------------------------------------------------------------------


def test_cells_are_the_limit_of_many_bins():
    tally = like_a_ct(0)
    cells = tt.Calibrator(bins="cells").add_tally(tally)
    assert cells.n_bins_ == len(tally.cells) == cells.bins_.asked
    assert np.array_equal(cells.bins_.count, tally.counts)
    many = tt.Calibrator(bins=tally.voxels).add_tally(tally)
    assert cells.map_ == many.map_
    # By hand: half precision has a cell for every score.
    score = np.float16([0.1, 0.1, 0.25, 0.5, 0.75, 0.75])
    made = tt.Calibrator(bins="cells").fit(score, [np.array([0, 1, 0, 1, 0, 1])])
    assert made.X_thresholds_.tolist() == [float(np.float16(0.1)), 0.25, 0.5, 0.75]
    np.testing.assert_allclose(made.y_thresholds_, [1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_a_bin_for_every_cell_takes_no_time_that_grows_with_voxels():
    """As many cuts as there are voxels are not counted one by one."""
    cells = np.array([3, 70_000], np.uint32)
    sums = np.array([[1 << 39, 0, 0, 0], [1 << 39, 0, 1, 1]], np.uint64)
    tally = tt.ScoreTally.of_rows(1, {(0,): (cells, sums)})
    assert tally.equal_mass_bins(EVERY_CELL).count.tolist() == [1 << 39, 1 << 39]
    assert tally.equal_mass_bins(1 << 40).count.tolist() == [1 << 39, 1 << 39]


def test_maps_without_bins_are_saved_merged_and_told(tmp_path):
    whole = tt.Calibrator(bins="cells")
    one, other = tt.Calibrator(bins="cells"), tt.Calibrator(bins="cells")
    for seed in range(4):
        (one, other)[seed % 2].add_tally(like_a_ct(seed, 5_000), f"case {seed}")
        whole.add_tally(like_a_ct(seed, 5_000), f"case {seed}")
    assert one.merge(other).map_ == whole.map_
    with pytest.raises(ValueError, match="bins is 'cells' here but 250 in the other"):
        one.merge(tt.Calibrator().add_tally(like_a_ct(9, 5_000), "other"))
    whole.save(tmp_path / "c.json")
    bins = json.loads((tmp_path / "c.json").read_text())["bins"]
    assert (bins["rule"], bins["asked"]) == ("cells", bins["made"])  # a number for earlier versions
    loaded = tt.load_calibrator(tmp_path / "c.json")
    assert (loaded.bins, loaded.bins_used, loaded.map_) == ("cells", "cells", whole.map_)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "c.json").read_bytes()


def test_cells_may_be_what_is_chosen(monkeypatch, tmp_path):
    monkeypatch.setattr(choose_bins, "__defaults__", (("cells",),))
    calibrator = tt.Calibrator(bins="auto", folds=2)
    for seed in range(2):
        calibrator.add_tally(like_a_ct(seed, 5_000), f"case {seed}")
    assert (calibrator.bins_used, calibrator.n_bins_asked) == ("cells", EVERY_CELL)
    calibrator.save(tmp_path / "c.json")
    assert tt.load_calibrator(tmp_path / "c.json").bins == "cells"


def test_cells_with_exact_cuts_are_refused():
    with pytest.raises(ValueError, match="bins='cells' has no cuts that exact=True could place"):
        tt.Calibrator(bins="cells", exact=True).fit(np.zeros(3, np.float32), [np.zeros(3)])


def test_a_file_of_too_many_knots_says_so(tmp_path, monkeypatch):
    made = tt.Calibrator(bins="cells").add_tally(like_a_ct(0))
    monkeypatch.setattr(calibrator_file, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match=rf"there are {len(made.X_thresholds_)} knots .* fewer bi"):
        made.save(tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()


def test_a_map_of_all_cells_fits_into_a_file(tmp_path):
    """Every cell a knot, the most there can be: values of 17 digits."""
    cells = np.arange(_core.GRID_CELLS, dtype=np.uint32)
    counts = np.full(len(cells), 1_000_003, np.uint64)
    marked = np.linspace(0, 1_000_003, len(cells)).astype(np.uint64)
    sums = np.stack([counts, np.zeros_like(counts), marked, marked], axis=1)
    tally = tt.ScoreTally.of_rows(1, {(0,): (cells, sums)})
    made = tt.Calibrator(bins="cells").add_tally(tally)
    assert len(made.X_thresholds_) > 100_000
    made.save(tmp_path / "c.json")
    assert (tmp_path / "c.json").stat().st_size < calibrator_file.LARGEST_FILE / 2
    assert tt.load_calibrator(tmp_path / "c.json").map_ == made.map_
