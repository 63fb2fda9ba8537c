"""What is told of a fitted map: small tallies in which few voxels are tumour, as in a CT."""

from __future__ import annotations

import json

import numpy as np
import pytest

import twintrack as tt
from twintrack.calibration.map_facts import MapFacts, line_for

RATERS = 3


def like_a_ct(seed=0, voxels=200_000, power=8.0):
    """Scores and labels: 1.5% are tumour, with scores that crowd near 1 and say too much."""
    rng = np.random.default_rng(seed)
    score = 1e-3 * rng.random(voxels)
    tumour = slice(0, voxels * 15 // 1000)
    score[tumour] = rng.random(score[tumour].size) ** 0.2
    truth = np.where(score > 0.1, score**power, 0)
    return score.astype(np.float32), list(rng.random((RATERS, voxels)) < truth)


@pytest.mark.parametrize(("bins", "warned"), [(20, 2), (100, 2), (400, 1), (4000, 0)])
def test_bins_that_cap_or_bend_the_map_are_warned_of(bins, warned):
    facts = tt.Calibrator(bins=bins).fit(*like_a_ct()).facts_
    assert len(facts.warnings) == warned
    capped = [text for text in facts.warnings if "largest value" in text]
    bent = [text for text in facts.warnings if "may be too few" in text]
    assert bool(capped) == (facts.top < 0.8)
    assert bool(bent) == (facts.off_cells >= 0.01)
    for text in facts.warnings:
        assert "--bins auto, --bins cells, more bins or a smaller region" in text


def test_without_bins_nothing_is_off():
    made = tt.Calibrator(bins="cells").fit(*like_a_ct())
    assert (made.facts_.off_cells, made.facts_.warnings) == (0, ())


def test_what_was_chosen_is_not_advised_again():
    """Two cases that contradict each other: few bins are as good as many."""
    (score, labels), (other, _) = like_a_ct(0), like_a_ct(1)
    contrary = [label & (other < 0.98) for label in like_a_ct(1, power=1)[1]]
    made = tt.Calibrator(bins="auto", folds=2).fit([score, other], [labels, contrary])
    assert made.facts_.warnings
    assert not any("--bins auto" in text for text in made.facts_.warnings)


def test_facts_by_hand():
    score = np.repeat(np.float32([0, 0.25, 0.5, 0.75]), [60, 20, 16, 4])
    labels = np.zeros((2, 100), bool)
    labels[0, 60:70] = labels[:, 80:84] = labels[:, 96:99] = True  # means 0, 1/4, 1/4, 3/4
    made = tt.Calibrator(bins=10).fit(score, list(labels))  # one bin for the upper two scores
    assert made.y_thresholds_.tolist() == [0, 0.25, 0.35]
    facts = made.facts_
    m = 0.25 + 0.1 * 0.25 / 0.3  # at 1/2
    log_score = -(
        10 * np.log(0.25) + 30 * np.log(0.75)
        + 8 * np.log(m) + 24 * np.log(1 - m)
        + 6 * np.log(0.35) + 2 * np.log(0.65)
    ) / 200  # fmt: skip
    assert facts == MapFacts(
        top=0.35,
        last_bin_votes=14 / 24,
        knots_above=2,
        off_cells=14 / 24,  # 0.33 and 0.35 for 1/4 and 3/4
        votes=24,
        votes_at_zero=0,
        log_score=pytest.approx(log_score, rel=1e-8),
        line="▁▁▁▁▂▂▂▂▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃",
        warnings=facts.warnings,
    )
    assert "is 0.350, so that no voxel reaches 0.8" in facts.warnings[0]
    assert "it would reach 0.750 without bins" in facts.warnings[0]
    assert "3 bins may be too few: at scores that hold 58% of the votes" in facts.warnings[1]


def test_a_tie_that_cannot_be_split_is_not_warned_of():
    """Nine voxels in ten have one score, as outside of a network's crop; others are divided."""
    rng = np.random.default_rng(0)
    score = np.float32(np.where(np.arange(50_000) < 45_000, 0.002, rng.random(50_000)))
    labels = [rng.random(score.size) < score**2 for _ in range(RATERS)]
    made = tt.Calibrator().fit(score, labels)
    assert made.provenance_["bins"]["largest_share"] > 0.89
    assert made.facts_.warnings == ()


def test_masks_for_scores_are_one_tie_at_the_top():
    """A top of 0.7 is all that these scores can say: no number of bins would change it."""
    score = np.repeat(np.float32([0, 1]), [900, 100])
    labels = [np.arange(1000) >= first for first in (900, 950, 940)]
    facts = tt.Calibrator().fit(score, labels).facts_
    assert facts.top == 0.7
    assert facts.warnings == ()


def test_raters_who_agree_no_more_are_told_that_bins_do_not_help():
    rng = np.random.default_rng(0)
    score = rng.random(50_000, np.float32)
    labels = [rng.random(score.size) < np.minimum(score, 0.5) for _ in range(RATERS)]
    (warning,) = tt.Calibrator(bins=20).fit(score, labels).facts_.warnings
    assert "more bins would not change it" in warning
    assert "--bins" not in warning


def test_a_ceiling_that_is_wanted_is_not_warned_of():
    made = tt.Calibrator(bins="cells", ceiling=0.5).fit(*like_a_ct())
    assert made.facts_.top == 0.5
    assert made.facts_.warnings == ()


def test_votes_that_are_sent_to_0_make_the_log_score_infinite(tmp_path):
    """One rater's map knows nothing of the votes of the others."""
    score = np.repeat(np.float32([0.25, 0.5]), [50, 50])
    labels = [np.arange(100) >= 60, np.arange(100) >= 40]
    single = tt.Calibrator("single", bins=10).fit(score, labels)
    assert single.facts_.votes_at_zero == 10
    assert single.facts_.share_at_zero == 0.1
    assert single.facts_.log_score == np.inf
    single.save(tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["facts"]["log_score"] is None
    assert tt.load_calibrator(tmp_path / "c.json").facts_ == single.facts_
    floored = tt.Calibrator("single", bins=10, floor=0.01).fit(score, labels).facts_
    assert floored.votes_at_zero == 0
    assert floored.log_score == pytest.approx(
        -(10 * np.log(0.01) + 90 * np.log(0.99) + 90 * np.log(0.8) + 10 * np.log(0.2)) / 200
    )
    # The other end: voxels that not all mark, sent to 1.
    sure = tt.Calibrator("single", bins=10).fit(score, [score > 0.3, score > 0.6])
    assert sure.facts_.log_score == np.inf


def test_facts_come_and_go_with_the_map():
    score, labels = like_a_ct()
    calibrator = tt.Calibrator(bins=20).partial_fit(score, labels, case="A")
    few = calibrator.facts_
    calibrator.set_params(bins=4000)
    assert calibrator.facts_ is few
    calibrator.partial_fit(*like_a_ct(1), case="B")
    assert calibrator.facts_.warnings == ()
    calibrator.partial_fit(*like_a_ct(2), case="C")
    assert calibrator.finish(facts=False).facts_ is None
    assert calibrator.provenance_["facts"] is None
    assert tt.Calibrator("none").fit(score, labels).facts_ is None


def test_a_file_of_before_there_were_facts_has_none(tmp_path):
    path = tmp_path / "c.json"
    tt.Calibrator(bins=20).fit(*like_a_ct()).save(path)
    content = json.loads(path.read_text())
    for name in ("facts", "bounds"):
        del content[name]
    del content["bins"]["rule"]
    path.write_text(json.dumps(content))
    loaded = tt.load_calibrator(path)
    assert loaded.facts_ is None
    assert (loaded.bins, loaded.floor, loaded.ceiling) == (20, 0.0, 1.0)
    assert (loaded.floor_, loaded.ceiling_) == (0.0, 1.0)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() != path.read_text()  # indented, else the same:
    assert json.loads((tmp_path / "again.json").read_text()) == content


def test_a_line_in_ascii():
    line = "▁▂▃▄▅▆▇█"
    assert line_for(line, "utf-8") == line
    for encoding in ("ascii", "latin-1", None, "no such"):
        shown = line_for(line, encoding)
        assert shown.isascii()
        assert len(set(shown)) == len(line)
