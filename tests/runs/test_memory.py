from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from twintrack.runs.memory import MemoryBudget, case_bytes
from twintrack.volumes import read_volume, write_volume

AFFINE = np.eye(4)
SHAPE = (70, 60, 50)
OVERHEAD = case_bytes({})


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_reservations_never_pass_the_limit():
    budget, held, most = MemoryBudget(100), 0, 0
    lock = threading.Lock()
    sizes = np.random.default_rng(0).integers(1, 150, 200)  # some are larger than the limit

    def work(own):
        nonlocal held, most
        for size in own:
            with budget.reserve(int(size)):
                with lock:
                    held += min(int(size), 100)
                    most = max(most, held)
                time.sleep(0)
                with lock:
                    held -= min(int(size), 100)

    threads = [in_thread(lambda k=k: work(sizes[k::8])) for k in range(8)]
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert most <= 100
    assert budget.take(100) == 100  # all was given back


def test_large_case_is_not_passed_over():
    """Small cases that would fit must not starve a large one that waits."""
    budget = MemoryBudget(10)
    first = budget.take(6)
    entered = []
    large = in_thread(lambda: entered.append(("large", budget.take(8))))
    while not budget._queue:
        time.sleep(0.001)
    small = in_thread(lambda: entered.append(("small", budget.take(2))))
    small.join(0.05)
    assert entered == []
    budget.give_back(first)
    large.join(5)
    small.join(5)
    assert entered == [("large", 8), ("small", 2)]


def test_reservation_is_given_back_after_an_error():
    budget = MemoryBudget(10)
    with pytest.raises(RuntimeError), budget.reserve(10):
        raise RuntimeError
    assert budget.take(10) == 10


@pytest.mark.parametrize("name", ["s.nii.gz", "s.npz", "classes.npz"])
def test_estimate_covers_what_reading_takes(tmp_path, name):
    path = tmp_path / name
    score = np.random.default_rng(1).random(SHAPE, np.float32)
    if name == "s.nii.gz":
        write_volume(path, score, AFFINE)
    elif name == "s.npz":
        np.savez_compressed(path, score=score)
    else:
        np.savez_compressed(path, probabilities=np.stack([score.T] * 7) / 7)
        (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "tumour": 1}}')
    estimate = case_bytes({"score": path}) - OVERHEAD
    held = read_volume(path, tumour=(1, 2)).array.nbytes * (2 if name == "classes.npz" else 1)
    copies = 5 * score.size  # the estimate's share for a region and a calibrated copy
    assert held + copies <= estimate <= 1.2 * (held + copies)


def test_mapped_files_take_no_memory(tmp_path):
    """A volume larger than memory can be used when it is mapped."""
    score = np.zeros(SHAPE, np.float32)
    write_volume(tmp_path / "s.nii", score, AFFINE)
    np.save(tmp_path / "s.npy", score)
    for name in ("s.nii", "s.npy"):
        assert case_bytes({"score": tmp_path / name}) - OVERHEAD == 5 * score.size


def test_scaled_integers_count_as_what_they_become(tmp_path):
    score = np.zeros(SHAPE, np.float32)
    write_volume(tmp_path / "s.nii.gz", score, AFFINE, dtype="uint8")
    assert case_bytes({"score": tmp_path / "s.nii.gz"}) - OVERHEAD == (1 + 4 + 5) * score.size


def test_slabs_of_every_file_are_counted(tmp_path):
    """What a volume takes that is gone through in slabs does not depend on its size."""
    score, slab = np.zeros(SHAPE, np.float32), 10_000
    files = {}
    sizes = []
    for role in ("score", "rater_1", "rater_2"):
        files[role] = tmp_path / f"{role}.nii.gz"
        write_volume(files[role], score, AFFINE)
        sizes.append(case_bytes(files, slab) - OVERHEAD)
    assert sizes[0] >= (4 + 5) * slab
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] >= 4 * slab
    assert sizes[2] < case_bytes({"score": files["score"]}) - OVERHEAD
    large = np.zeros((70, 60, 500), np.float32)
    write_volume(tmp_path / "large.nii.gz", large, AFFINE)
    assert case_bytes({"score": tmp_path / "large.nii.gz"}, slab) - OVERHEAD == sizes[0]


def test_the_largest_file_decides_in_any_order(tmp_path):
    write_volume(tmp_path / "large.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    write_volume(tmp_path / "small.nii.gz", np.zeros((7, 6, 5), np.uint8), AFFINE)
    names = ["large.nii.gz", "small.nii.gz"]
    one, other = (
        case_bytes({name: tmp_path / name for name in order}) for order in (names, names[::-1])
    )
    assert one == other


def test_metaimage_is_taken_for_its_largest_type(tmp_path):
    pytest.importorskip("SimpleITK")
    score = np.zeros(SHAPE, np.float64)
    write_volume(tmp_path / "s.mha", score, AFFINE, dtype="float64")
    held = read_volume(tmp_path / "s.mha").array.nbytes
    assert case_bytes({"score": tmp_path / "s.mha"}) - OVERHEAD >= held + 5 * score.size


@pytest.mark.parametrize("name", ["s.nii.gz", "s.npz", "s.npy"])
def test_broken_header_names_the_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises((ValueError, OSError), match=name):
        case_bytes({"score": tmp_path / name})
