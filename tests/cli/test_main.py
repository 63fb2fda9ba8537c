from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from twintrack import __version__, cli


def test_overview_lists_every_command(twintrack):
    status, out, err = twintrack("--help")
    assert (status, err) == (0, "")
    for name in cli._available():
        assert f" {name} " in out
        assert cli.COMMANDS[name].summary in out
    assert "1 some cases failed" in out


def test_overview_needs_no_command_to_be_loaded(environment):
    """What a command needs (images, plots, networks) would make --help slow, or break it."""
    script = (
        "import sys; from twintrack.cli import _overview\n"
        "try: _overview()(args=['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'nibabel', 'scipy', 'matplotlib', 'torch', 'distributed'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["phantom", "fit", "apply", "evaluate", "merge", "info"])
def test_every_command_explains_itself(twintrack, name):
    status, out, err = twintrack(name, "-h")
    assert (status, err) == (0, "")
    assert f"Usage: twintrack {name}" in out


def test_version(twintrack):
    assert twintrack("--version") == (0, f"twintrack {__version__}\n", "")


def test_unknown_command_is_a_usage_error_with_a_hint(twintrack):
    status, _, err = twintrack("fot")
    assert status == 2
    assert "Did you mean 'fit'?" in err


def test_missing_option_is_a_usage_error(twintrack):
    status, _, err = twintrack("fit")
    assert status == 2
    assert "-o" in err


def test_missing_extra_is_told_before_the_work(twintrack, monkeypatch, tmp_path):
    for name in ("matplotlib", "nnunetv2"):
        monkeypatch.setitem(sys.modules, name, None)
    image, out = tmp_path / "a.nii.gz", tmp_path / "out"
    image.touch()
    for arguments, package, extra in (
        (("compare", "a", "b", "-o", out), "matplotlib", "report"),
        (("demo", "-o", out), "matplotlib", "report"),
        (("study", "--tallies", "a", "-o", out), "matplotlib", "report"),
        (("predict", "-i", image, "-o", out, "--members", "none"), "nnunetv2", "nnunet"),
    ):
        told = f"twintrack: {arguments[0]} needs {package}: pip install 'twintrack[{extra}]'\n"
        assert twintrack(*arguments) == (2, "", told)
    assert not out.exists()


def test_unexpected_errors_take_one_line_and_a_traceback_only_when_asked_for(
    twintrack, monkeypatch, cohort
):
    def broken(*_, **__):
        raise KeyError("surprise")

    monkeypatch.setattr("twintrack.cli.options.CohortFiles.read", broken)
    arguments = ("fit", "-i", cohort / "manifest.csv", "-o", cohort / "c.json")
    status, _, err = twintrack(*arguments)
    assert (status, err) == (2, "twintrack: KeyError: 'surprise' (--verbose shows where)\n")
    _, _, err = twintrack(*arguments, "--verbose")
    assert "Traceback" in err
    _, _, err = twintrack(*arguments, "--log-json")
    assert json.loads(err)["event"] == "error"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_a_run_at_once_and_keep_what_is_finished(
    tmp_path, command, environment, number
):
    """Cases take seconds here; the run must not wait for those being worked on."""
    script = (
        "import time; from twintrack.runs.fit import TallyJob; read = TallyJob.read\n"
        "def slow(self, case):\n"
        "    if case.name != 'PHANTOM_00000': print('busy', flush=True); time.sleep(20)\n"
        "    return read(self, case)\n"
        "TallyJob.read = slow\n"
    ) + command[2]
    from twintrack.datasets.phantom import PhantomSpec, write_cohort

    manifest = write_cohort(tmp_path, PhantomSpec(shape=(24, 24, 20), raters=2), 3)
    arguments = ["fit", "-i", str(manifest), "-o", str(tmp_path / "c.json"), "-npp", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    records = tmp_path / "c.tallies"
    while not list(records.glob("*/cases/*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    assert process.stdout.readline() == "busy\n"
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - sent < 1.0
    assert process.returncode == 128 + number
    assert "interrupted; what is finished is kept" in err
    assert "Traceback" not in err
    assert [path.stem for path in records.glob("*/cases/*.json")] == ["PHANTOM_00000"]
    assert not list(records.glob("*/staging-*"))


def test_info_tells_what_a_bug_report_needs(twintrack):
    status, out, _ = twintrack("info")
    assert status == 0
    for word in (__version__, "numpy", "instructions", "threads", "CUDA"):
        assert word in out
    facts = json.loads(twintrack("info", "--json")[1])
    assert facts["threads"] >= 1
    assert isinstance(facts["cuda_built"], bool)


def test_predictions_beside_their_images_are_refused_before_networks_are_loaded(
    twintrack, tmp_path
):
    status, _, err = twintrack("predict", "-i", tmp_path, "-o", tmp_path, "--members", "none")
    assert (status, "-o is the folder of the images" in err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("apply", "-i", "none", "-m", "none"),
        ("evaluate", "-i", "none"),
        ("merge", "none"),
        ("compare", "none"),
        ("demo",),
        ("phantom",),
        ("study", "--tallies", "none"),
        ("predict", "-i", "none", "--members", "none"),
        ("prepare", "panorama", "-i", "none", "-l", "none"),
    ],
)
def test_folders_that_cannot_be_written_are_found_before_anything_is_read(
    twintrack, tmp_path, arguments
):
    (tmp_path / "file").touch()
    status, _, err = twintrack(*arguments, "-o", tmp_path / "file" / "results")
    assert (status, err.partition(": ")[2]) == (
        2,
        f"{tmp_path}/file/results: {tmp_path}/file is a file, not a folder\n",
    )
