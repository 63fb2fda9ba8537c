"""What commands show of a calibrator: facts of its map, warnings, the choice of bins."""

from __future__ import annotations

import json
import subprocess


def test_bins_by_cross_validation_show_their_scores(fit, twintrack, pristine_cohort):
    _, out, _, output = fit("-i", pristine_cohort / "manifest.csv", "--bins", "auto")
    made_of = json.loads(output.read_text())
    choice = made_of["cross_validation"]
    assert "Bins by 5-fold cross-validation" in out
    for bins, score in choice["scores"].items():
        row = next(line for line in out.splitlines() if line.split()[:1] == [bins])
        assert f"{score:.6f}" in row
        assert ("(chosen)" in row) == (bins == str(choice["chosen"]))
        assert ("best" in row) == (bins == str(choice["best"]))
        error = choice["standard_errors"][bins]
        assert (f"{error:.1e}" in row) == (bins != str(choice["best"]))
    # Other words, the same figures: `info` reads the file.
    assert f"{min(choice['scores'].values()):.6f}" in twintrack("info", "-m", output)[1]
    # A file of an earlier version has the scores alone.
    made_of["cross_validation"] = {"folds": 5, "scores": choice["scores"]}
    output.write_text(
        json.dumps({k: v for k, v in made_of.items() if k not in ("facts", "bounds")})
    )
    status, out, _ = twintrack("info", "-m", output)
    assert status == 0
    assert "(chosen)" not in out


def test_facts_and_warnings_are_in_terminal_and_file(fit, twintrack, pristine_cohort):
    source = ("-i", pristine_cohort / "manifest.csv")
    _, out, err, output = fit(*source, "--bins", "2")
    facts = json.loads(output.read_text())["facts"]
    assert facts["top"] < 0.8
    assert len(facts["warnings"]) == 2
    for warning in facts["warnings"]:
        assert f"warning: {warning}" in err
    assert f"{facts['line']}  largest value {facts['top']:.3f}" in out
    assert f"{facts['last_bin_votes']:.1%} of the votes" in out
    status, out, err = twintrack("info", "-m", output)
    assert status == 0
    assert facts["line"] in out
    assert facts["warnings"][0] in err
    assert json.loads(twintrack("info", "-m", output, "--json")[1])["facts"] == facts
    *_, err, output = fit(*source, "--bins", "cells")
    assert "warning" not in err
    assert json.loads(output.read_text())["bins"]["rule"] == "cells"


def test_a_terminal_without_block_characters_shows_others(
    pristine_cohort, command, environment, tmp_path
):
    told = subprocess.run(
        (*command, "fit", "-i", pristine_cohort / "manifest.csv", "-o", "c.json"),
        cwd=tmp_path,
        env={**environment, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    line = next(row for row in told.stdout.decode("ascii").splitlines() if "largest value" in row)
    assert set(line.split()[4]) <= set("_.-:=+*#")


def test_thresholds_of_masks_are_told(fit, twintrack, pristine_cohort):
    source = ("-i", pristine_cohort / "manifest.csv")
    _, out, _, output = fit(*source)
    known = json.loads(output.read_text())["thresholds"]
    row = f"mask at {known['majority']:.3g} (majority), {known['dice']:.3g} (Dice)"
    assert row in " ".join(out.split())
    assert row in " ".join(twintrack("info", "-m", output)[1].split())
    assert json.loads(twintrack("info", "-m", output, "--json")[1])["thresholds"] == known
    again = ("--tallies", output.with_name("c.tallies"))
    assert fit(*again, name="again.json")[-1].read_bytes() == output.read_bytes()
    # A map that ends below makes empty masks, and one of an earlier version makes none.
    content = json.loads(output.read_text())
    for top, empty in (
        (content["knots"]["y"][-1], True),
        (0.999 * content["knots"]["y"][-1], False),
    ):
        content["thresholds"]["majority"] = top
        output.write_text(json.dumps(content))
        told = " ".join(twintrack("info", "-m", output)[1].split())
        assert ("(majority), which no score reaches, " in told) == empty
    content["thresholds"]["majority"] = None
    output.write_text(json.dumps(content))
    row = next(r for r in twintrack("info", "-m", output)[1].splitlines() if "mask at" in r)
    assert "majority" not in row
    del content["thresholds"]
    output.write_text(json.dumps(content))
    assert "mask at" not in twintrack("info", "-m", output)[1]
