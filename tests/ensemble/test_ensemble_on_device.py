"""The score of an ensemble on a device is that of the same arrays in host memory.

Run on stand-ins for the libraries with the kernels executed by the CPU (see arrays/test_device).
"""

from __future__ import annotations

import numpy as np
import pytest

import twintrack as tt
from twintrack.ensemble import ExportGeometry, ensemble_score, export_score

MAP = tt.CalibrationMap([0.1, 0.4, 0.8], [0.0, 0.5, 0.9])


def logits(shape, count=3, dtype=np.float16, seed=0):
    rng = np.random.default_rng(seed)
    return [(6 * rng.standard_normal(shape)).astype(dtype) for _ in range(count)]


@pytest.mark.parametrize("calibrator", [None, MAP])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_ensemble_score_is_the_cpus(library, average, calibrator):
    members = logits((4, 5, 7, 9))
    put = [library.put(m) for m in members]
    arguments = {"tumour": [1, 3], "average": average, "calibrator": calibrator}
    expected = ensemble_score(members, **arguments)
    found = ensemble_score(put, **arguments)
    assert type(found) is type(put[0])
    np.testing.assert_array_equal(library.get(found), expected, strict=True)
    out = library.put(np.full((5, 7, 9), 7, np.float16))
    assert ensemble_score(put, out=out, **arguments) is out
    host_out = np.empty((5, 7, 9), np.float16)
    np.testing.assert_array_equal(
        library.get(out), ensemble_score(members, out=host_out, **arguments), strict=True
    )


def test_export_score_is_the_cpus(library):
    members = logits((3, 6, 5, 8), 2)
    geometry = ExportGeometry(
        shape=(12, 17, 15),
        box=((1, 11), (2, 16), (0, 15)),
        member_spacing=(2.0, 2.0, 1.5),
        spacing=(1.2, 0.8, 0.8),
    )
    expected = export_score(members, geometry, calibrator=MAP)
    put = [library.put(m) for m in members]
    found = export_score(put, geometry, calibrator=MAP)
    np.testing.assert_array_equal(library.get(found), expected, strict=True)
    assert expected.any()
    out = library.put(np.full((12, 17, 15), 7, np.float32))
    export_score(put, geometry, calibrator=MAP, out=out)
    np.testing.assert_array_equal(library.get(out), expected, strict=True)


def test_bad_input_is_refused_by_name(library):
    members = logits((2, 4, 5))
    members[1][1, 2, 3] = np.inf
    put = [library.put(m) for m in members]
    with pytest.raises(ValueError, match=r"members\[1\]\[1, 2, 3\] is inf"):
        ensemble_score(put)
    with pytest.raises(TypeError, match=r"members\[2\] is in host memory"):
        ensemble_score([*put[:2], members[2]])
    with pytest.raises(ValueError, match=r"out overlaps members\[0\]"):
        ensemble_score(put, out=put[0][0])
