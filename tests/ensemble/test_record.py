"""How scores were made, and maps that were fitted on others."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ensemble_members import WHOLE, logits

from twintrack import Calibrator
from twintrack.ensemble import (
    check_ensemble,
    ensemble_record,
    ensemble_score,
    export_score,
)


def test_calibrator_of_another_ensemble_is_refused(tmp_path):
    rng = np.random.default_rng(9)
    members = logits(rng, (3, 12, 12, 12))
    score = ensemble_score(members, tumour=(1, 2))
    record = ensemble_record(3, (1, 2), "probabilities")
    fitted = Calibrator(bins=10, ensemble=record).fit(score, [rng.random(score.shape) < score])
    fitted.save(tmp_path / "calibrator.json")
    loaded = Calibrator.load(tmp_path / "calibrator.json")
    for calibrator in (fitted, loaded):
        ensemble_score(members, (1, 2), calibrator=calibrator)
        with pytest.raises(ValueError, match=r"average = 'probabilities'.*average = 'logits'"):
            ensemble_score(members, (1, 2), average="logits", calibrator=calibrator)
        with pytest.raises(ValueError, match=r"tumour = \[1, 2\].*tumour = \[1\]"):
            ensemble_score(members, calibrator=calibrator)
        with pytest.raises(ValueError, match="members = 3"):
            export_score(members[:2], WHOLE, (1, 2), calibrator=calibrator)


def test_what_is_not_known_of_a_score_is_not_compared():
    recorded = {"tumour": (1, 2), "average": "logits"}
    calibrator = SimpleNamespace(provenance_={"ensemble": recorded})
    for made in ({}, {"tumour": [1, 2]}, {"average": "logits", "members": 5}):
        check_ensemble(calibrator, made)
    with pytest.raises(ValueError, match=r"tumour = \(1, 2\), but this one has tumour = \[2, 1\]"):
        check_ensemble(calibrator, {"tumour": [2, 1]})
