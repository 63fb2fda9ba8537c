import copy
import json
import pickle

import numpy as np
import pytest
from reference import KINDS, equal_mass, fitted_map, sample
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

import twintrack as tt


def cohort(cases=6, shape=(16, 17, 18), raters=3, dtype=np.float32, seed=0):
    """Scores, and raters who agree with score^2 more or less from case to case."""
    rng = np.random.default_rng(seed)
    scores = [rng.random(shape).astype(dtype) for _ in range(cases)]
    labels = [
        [rng.random(shape) < score.astype(float) ** (1.5 + i / cases) for _ in range(raters)]
        for i, score in enumerate(scores)
    ]
    return scores, labels


GRID = np.linspace(0, 1, 20_001)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_sorting_and_scipy(dtype, kind):
    rng = np.random.default_rng(0)
    score = sample(rng, 200_000, kind, dtype)
    labels = [rng.random(score.size) < score.astype(float) ** 2 for _ in range(5)]
    x, y = fitted_map(score, labels, 250)
    expected = np.interp(GRID, x, y)
    exact = tt.Calibrator(exact=True).fit(score, labels)
    assert np.abs(exact.transform(GRID) - expected).max() < 1e-9
    assert np.abs(exact.transform(GRID.astype(np.float32)) - expected).max() < 1e-6
    one_pass = tt.Calibrator().fit(score, labels)
    noise = 3 / np.sqrt(200_000 / 250) / 5  # of a bin's mean, times the share a cut can move
    assert np.abs(one_pass.transform(GRID) - expected).max() < (
        1e-9 if dtype == np.float16 else noise
    )


def test_single_and_hard_targets():
    scores, labels = cohort(1)
    count, mean, votes = equal_mass(
        scores[0].astype(np.float16).ravel(), [r.ravel() for r in labels[0]], 20
    )
    half = scores[0].astype(np.float16)
    fits = [tt.isotonic(votes[:, i] / count, count) for i in range(3)]
    for rater in range(3):
        single = tt.Calibrator("single", bins=20, rater=rater).fit(half, labels[0])
        np.testing.assert_allclose(single.transform(mean), fits[rater], atol=1e-9)
    hard = tt.Calibrator("hard", bins=20).fit(half, labels[0])
    np.testing.assert_allclose(hard.transform(mean), np.mean(fits, axis=0), atol=1e-9)
    none = tt.Calibrator("none").fit(half, labels[0])
    assert np.array_equal(none.transform(scores[0]), scores[0])


def test_keeps_the_weighted_mean():
    scores, labels = cohort()
    fitted = tt.Calibrator(bins=40).fit(scores, labels)
    bins = fitted.bins_
    calibrated = np.average(fitted.transform(bins.mean_score), weights=bins.count)
    assert calibrated == pytest.approx(np.average(bins.mhr, weights=bins.count), abs=1e-12)


def test_streaming_merging_and_fitting_are_one_and_the_same():
    scores, labels = cohort()
    whole = tt.Calibrator(bins=50).fit(scores, labels)
    stream = tt.Calibrator(bins=50)
    for score, raters in zip(scores, labels, strict=True):
        for piece in range(4):
            stream.partial_fit(score[piece::4], [rater[piece::4] for rater in raters])
    merged = tt.Calibrator(bins=50)
    for index in (4, 0, 5, 2, 1, 3):
        part = tt.Calibrator(bins=50).partial_fit(scores[index], labels[index], case=str(index))
        merged.merge(part)
    assert stream.map_ == whole.map_ == merged.map_
    assert merged.n_cases_ == whole.n_cases_ == 6
    assert stream.n_cases_ == 1
    assert stream.n_voxels_ == whole.n_voxels_


def test_a_stream_can_go_on_after_the_map_was_used():
    scores, labels = cohort(2)
    stream = tt.Calibrator(bins=50).partial_fit(scores[0], labels[0])
    first = stream.map_
    stream.partial_fit(scores[1], labels[1])
    assert stream.map_ != first
    assert stream.map_ == tt.Calibrator(bins=50).fit(scores, labels).map_


def test_regions_select_voxels():
    scores, labels = cohort(2)
    regions = [np.arange(16)[:, None, None] < 8, np.arange(17)[None, :, None] < 5]
    regions = [np.broadcast_to(region, scores[0].shape) for region in regions]
    selected = tt.Calibrator(bins=20).fit(scores, labels, regions)
    cut = tt.Calibrator(bins=20).fit(
        [s[r] for s, r in zip(scores, regions, strict=True)],
        [[m[r] for m in ms] for ms, r in zip(labels, regions, strict=True)],
    )
    assert selected.map_ == cut.map_
    assert selected.region_ == "mask"
    assert cut.region_ == "all"


def test_follows_scikit_learn():
    fitted = tt.Calibrator("hard", bins=30, seed=3)
    with pytest.raises(NotFittedError):
        check_is_fitted(fitted)
    assert not hasattr(fitted, "X_thresholds_")
    assert clone(fitted).get_params() == fitted.get_params()
    scores, labels = cohort(2)
    fitted.fit(scores, labels)
    check_is_fitted(fitted)
    assert not hasattr(clone(fitted), "map_")
    assert fitted.set_params(bins=10).bins == 10
    with pytest.raises(ValueError, match="no parameter 'bin'"):
        fitted.set_params(bin=10)
    assert repr(fitted) == "Calibrator(target='hard', bins=10, seed=3)"
    assert np.array_equal(fitted.fit_transform(scores[0], labels[0]), fitted.predict(scores[0]))
    assert np.all(np.diff(fitted.X_thresholds_) > 0)
    restored = pickle.loads(pickle.dumps(fitted))
    assert restored.map_ == fitted.map_
    assert restored.partial_fit(scores[1], labels[1]).n_voxels_ == 2 * scores[0].size


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("cls", [tt.Calibrator, tt.ScoreTally, tt.CaseTally])
def test_copies_are_their_own(cls, copied):
    (first, second, third), labels = cohort(3)

    def add(made, score, masks):
        return made.partial_fit(score, masks) if cls is tt.Calibrator else made.update(score, masks)

    def state(made):
        return made.tallies_ if cls is tt.Calibrator else made

    begun = add(tt.Calibrator(bins=20) if cls is tt.Calibrator else cls(3), first, labels[0])
    alone = pickle.loads(pickle.dumps(begun))
    other = copied(begun)
    add(other, second, labels[1])
    assert state(begun) == state(alone)
    assert state(other) == state(add(alone, second, labels[1]))
    before = pickle.loads(pickle.dumps(other))
    add(begun, third, labels[2])
    assert state(other) == state(before) != state(begun)


def test_what_could_not_be_added_does_not_make_it_fitted():
    begun = tt.Calibrator()
    with pytest.raises(ValueError, match="is 2"):
        begun.partial_fit(np.full(3, 2.0), [np.zeros(3)])
    with pytest.raises(NotFittedError):
        check_is_fitted(begun)
    with pytest.raises(AttributeError, match="not fitted"):
        begun.transform(np.zeros(3))


def test_plateaus_keep_only_their_ends():
    score = np.linspace(0, 1, 1000, dtype=np.float32)
    fitted = tt.Calibrator(bins=100).fit(score, [score > 0.5])
    assert fitted.n_bins_ == 100
    assert len(fitted.X_thresholds_) < 10


def test_save_and_load(tmp_path):
    scores, labels = cohort()
    for fitted in (
        tt.Calibrator(bins=40, region_rule="roi", ensemble={"average": "logits", "members": 3}),
        tt.Calibrator("single", rater=np.int64(2)),
        tt.Calibrator("none"),
        tt.Calibrator(bins="auto", folds=3),
    ):
        fitted.fit(scores, labels)
        fitted.save(tmp_path / "c.json")
        loaded = tt.load_calibrator(tmp_path / "c.json")
        assert loaded.map_ == fitted.map_
        assert loaded.provenance_ == fitted.provenance_
        assert (loaded.target, loaded.ensemble, loaded.region_) == (
            fitted.target,
            fitted.ensemble,
            fitted.region_,
        )
        assert loaded.rater == (fitted.rater if fitted.target == "single" else 0)
        loaded.save(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "c.json").read_bytes()
        with pytest.raises(ValueError, match="loaded"):
            loaded.partial_fit(scores[0], labels[0])
        with pytest.raises(ValueError, match="loaded"):
            loaded.add_tally(fitted.tallies_["0"])
        with pytest.raises(ValueError, match="no tallies"):
            loaded.band()
        # Fitted again, it is no more what the file says.
        assert loaded.set_params(bins=30).fit(scores[:2], labels[:2]).provenance_["cases"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.json", "c.json"]


def deep(levels):
    nested = []
    for _ in range(levels):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a calibrator file"),
        ({"format_version": 2}, "format_version is 2, this TwinTrack reads up to 1: update"),
        ({"format_version": "1"}, "format_version is '1'"),
        ({"knots": {"x": [0.5, 0.4], "y": [0, 1]}}, "knots are broken: x.1. is 0.4"),
        ({"knots": {"x": [0.4, 0.5], "y": [1, 0]}}, "knots are broken: y.1. is 0, below"),
        ({"knots": {"x": [], "y": []}}, "knots are broken"),
        ({"knots": {"x": [float("nan")], "y": [0]}}, "NaN is no number"),
        ({"knots": {"x": ["0"], "y": [0]}}, "knots must hold the lists of numbers x and y"),
        ({"knots": {"x": [True], "y": [0]}}, "knots must hold the lists of numbers"),
        ({"knots": [1, 2]}, "knots must hold the lists of numbers"),
        ({"target": "median"}, "target is 'median'; it must be one of mhr, single"),
        ({"raters": -1}, "raters is -1; it must be a whole number"),
        ({"voxels": 1.5}, "voxels is 1.5; it must be a whole number"),
        ({"cases": None}, "cases must be a whole number"),
        ({"rater": "0"}, "rater is '0'; it must be null or the number of a rater"),
        ({"rater": -1}, "rater is -1; it must be null or"),
        ({"region": [1, 2]}, "region must be null or a text"),
        ({"bins": 250}, "bins is 250; it must be an object"),
        ({"bins": {"asked": -3}}, "bins.asked is -3; it must be a number of at least 1"),
        ({"bins": {"asked": "auto"}}, "bins.asked is 'auto'; it must be a number"),
        ({"bins": {"made": "all"}}, "bins.made is 'all'; it must be a whole number"),
        ({"bins": {"exact": 1}}, "bins.exact is 1; it must be true or false"),
        ({"bins": {"rule": 7}}, "bins.rule is 7; it must be a text"),
        ({"bounds": {"floor": -1}}, "bounds.floor is -1; it must be a number from 0 to 1"),
        ({"bounds": {"auto": ["roof"]}}, "bounds.auto"),
        ({"facts": {"top": 0.5}}, "facts must be null or the facts of the map"),
        ({"ensemble": [3]}, "ensemble must be null or an object"),
        ({"versions": deep(500)}, "it is nested too deeply"),
        ({"fitted_on": {}}, "fitted_on must be null or a list of objects with case and score"),
        ({"fitted_on": [{"score": None}]}, "fitted_on must be null or a list"),
        ({"fitted_on": [{"case": "0a", "score": 7}]}, "fitted_on must be null or a list"),
    ],
)
def test_a_broken_calibrator_file_is_named(tmp_path, change, message):
    path = tmp_path / "c.json"
    scores, labels = cohort(1)
    tt.Calibrator(bins=10).fit(scores, labels).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"c\.json: .*{message}"):
        tt.load_calibrator(path)


def test_files_that_are_no_calibrators(tmp_path):
    for content in (b"", b"{", b"\xff\xfe", b"[]", b"[" * 100_000):
        (tmp_path / "c.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"c\.json"):
            tt.load_calibrator(tmp_path / "c.json")
    with pytest.raises(FileNotFoundError):
        tt.load_calibrator(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "median"}, "target is 'median'"),
        ({"bins": 0}, "bins is 0"),
        ({"bins": "many"}, "bins is 'many'"),
        ({"bins": 2.5}, "bins is 2.5"),
        ({"target": "single", "rater": 0.5}, "rater is 0.5"),
        ({"target": "single", "rater": 3}, "rater is 3 but there are 3 raters"),
        ({"target": "single", "rater": -1}, "rater is -1 but there are 3 raters"),
        ({"bins": "auto", "exact": True}, "exact=True"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    scores, labels = cohort(2)
    with pytest.raises(ValueError, match=message):
        tt.Calibrator(**parameters).fit(scores, labels)


def test_a_fit_that_fails_leaves_the_map_as_it_was():
    scores, labels = cohort(3)
    calibrator = tt.Calibrator(bins=10)
    wrong = [scores[0], scores[1] + np.float32(2)]
    with pytest.raises(ValueError, match="case 1"):
        calibrator.fit(wrong, labels[:2])
    with pytest.raises(AttributeError, match="not fitted"):
        calibrator.transform(scores[0])
    fitted = calibrator.fit(scores, labels).map_
    with pytest.raises(ValueError, match="case 1"):
        calibrator.fit(wrong, labels[:2])
    assert calibrator.map_ is fitted
    assert list(calibrator.tallies_) == ["0", "1", "2"]


def test_merged_calibrators_tell_of_the_regions_of_both():
    scores, labels = cohort(2)
    tallies = [tt.ScoreTally(3).update(s, r) for s, r in zip(scores, labels, strict=True)]
    one = tt.Calibrator(bins=20).add_tally(tallies[0], "A", region="roi")
    other = tt.Calibrator(bins=20).add_tally(tallies[1], "B", region="box")
    assert one.merge(other).region_ == "box+roi"
    assert other.region_ == "box"


def test_share_of_the_largest_bin_is_that_of_the_largest():
    score = np.repeat(np.array([0.25, 0.5, 0.75], np.float32), [700, 200, 100])
    made = tt.Calibrator(bins=10).fit(score, [score > 0.4])
    assert made.bins_.count.tolist() == [700, 200, 100]
    assert made.provenance_["bins"]["largest_share"] == 0.7


def test_bad_cohorts_are_named():
    scores, labels = cohort(3)
    with pytest.raises(ValueError, match="3 scores but 2 sets of raters"):
        tt.Calibrator().fit(scores, labels[:2])
    with pytest.raises(ValueError, match="empty list"):
        tt.Calibrator().fit([], [])
    with pytest.raises(ValueError, match="case 1: it has 2 raters but the cases before it have 3"):
        tt.Calibrator("hard").fit(scores, [labels[0], labels[1][:2], labels[2]])
    scores[2][3, 4, 5] = np.nan
    with pytest.raises(ValueError, match=r"case 2: score\[3, 4, 5\] is nan"):
        tt.Calibrator().fit(scores, labels)
    with pytest.raises(ValueError, match="no voxel lies in the region"):
        tt.Calibrator().fit(scores[0], labels[0], np.zeros(scores[0].shape, bool))
    with pytest.raises(AttributeError, match="call refine"):
        _ = tt.Calibrator(exact=True).partial_fit(scores[0], labels[0]).map_
    with pytest.raises(ValueError, match="exact=True"):
        tt.Calibrator().fit(scores[0], labels[0]).refine([(scores[0], labels[0], None)])
    with pytest.raises(TypeError, match="give a list"):
        tt.Calibrator(exact=True).partial_fit(scores[0], labels[0]).refine(iter([]))
    with pytest.raises(ValueError, match="no tallies"):
        tt.Calibrator(exact=True).refine([(scores[0], labels[0], None)])
    with pytest.raises(RuntimeError):
        tt.Calibrator(exact=True).partial_fit(scores[0], labels[0]).refine(
            [(scores[1], labels[1], None)]
        )
    with pytest.raises(ValueError, match="case '0' is in both"):
        tt.Calibrator().fit(scores[:2], labels[:2]).merge(
            tt.Calibrator().fit(scores[:2], labels[:2])
        )
    itself = tt.Calibrator().fit(scores[0], labels[0])
    with pytest.raises(ValueError, match="twice"):
        itself.merge(itself)
    with pytest.raises(ValueError, match="bins is 250 here but 10"):
        tt.Calibrator().fit(scores[:2], labels[:2]).merge(
            tt.Calibrator(bins=10).fit(scores[:2], labels[:2])
        )


@pytest.mark.torch
def test_torch_tensors_in_and_out():
    torch = pytest.importorskip("torch")
    scores, labels = cohort(1)
    fitted = tt.Calibrator(bins=20).fit(
        torch.from_numpy(scores[0]), torch.from_numpy(np.stack(labels[0]))
    )
    assert fitted.map_ == tt.Calibrator(bins=20).fit(scores[0], labels[0]).map_
    mapped = fitted.transform(torch.from_numpy(scores[0]))
    assert isinstance(mapped, torch.Tensor)
    assert np.array_equal(mapped.numpy(), fitted.transform(scores[0]))
    brain = torch.from_numpy(scores[0]).bfloat16()
    np.testing.assert_allclose(fitted.transform(brain).float().numpy(), mapped.numpy(), atol=0.05)
    module = fitted.torch_module()
    assert (module(torch.from_numpy(scores[0])) - mapped).abs().max() <= 2.0**-22


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tallies_and_a_second_pass_give_the_exact_map(dtype):
    """What `fit` does in one go, from tallies made elsewhere and voxels in other parts."""
    scores, labels = cohort(3, dtype=dtype)
    expected = tt.Calibrator(exact=True).fit(scores, labels)
    tallied = tt.Calibrator(exact=True)
    streamed = tt.Calibrator(exact=True)
    for k, (score, raters) in enumerate(zip(scores, labels, strict=True)):
        tallied.add_tally(tt.ScoreTally(3).update(score, raters), str(k))
        streamed.partial_fit(score, raters, case=str(k))
    halves = [
        (score[part], [rater[part] for rater in raters], None)
        for score, raters in zip(scores, labels, strict=True)
        for part in (slice(9, None), slice(9))
    ]
    for calibrator in (tallied, streamed):
        assert calibrator.refine(halves).map_ == expected.map_
        assert calibrator.n_cases_ == 3
    # More voxels ask for another second pass.
    streamed.partial_fit(scores[0], labels[0], case="again")
    assert not hasattr(streamed, "map_")


def test_parts_of_a_case_are_one_case():
    scores, labels = cohort(4)
    tallies = [tt.ScoreTally(3).update(s, r) for s, r in zip(scores, labels, strict=True)]
    for name in (None, "A"):
        pieces = tt.Calibrator(bins=20).add_tally(tallies[0], name).add_tally(tallies[1], name)
        pieces.partial_fit(scores[2], labels[2], case=name)
        pieces.add_tally(tallies[3], name)
        assert pieces.n_cases_ == 1
        assert pieces.n_voxels_ == 4 * scores[0].size
    assert pieces.add_tally(tallies[0], "B").n_cases_ == 2


def test_sum_of_several_cases_is_counted_and_named():
    scores, labels = cohort(4)
    total = tt.ScoreTally(3)
    for score, raters in zip(scores, labels, strict=True):
        total.update(score, raters)
    before = total + tt.ScoreTally(3)
    whole = tt.Calibrator(bins=20).add_tally(total, cases=3, region="roi")
    whole.add_tally(tt.ScoreTally(3).update(scores[0], labels[0]), "more", region="roi")
    assert (whole.n_cases_, whole.region_) == (4, "roi")
    assert total == before  # adding to the calibrator leaves what was added alone
    whole.partial_fit(scores[1], labels[1])
    assert total == before
    merged = tt.Calibrator(bins=20).add_tally(before, "first").merge(whole)
    assert merged.n_cases_ == 1 + whole.n_cases_
