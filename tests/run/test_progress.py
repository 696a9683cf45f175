"""Where nobody looks at a terminal, a line now and then says how far it is."""

import sys

import pytest

from tinyjax.run import progress


def steps(bar):
    for k in range(3):
        bar.set_description_str(f"part {k}")
        bar.update()
        bar.set_postfix_str(f"loss {k}")
    bar.close()


def test_lines_of_a_log(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0)
    steps(progress.progress_bar(total=4, initial=1, unit="step"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    lines = err.splitlines()
    assert lines[0].startswith("1 of 4 steps, 00:00 gone, ")
    assert lines[1].startswith("part 0 2 of 4 steps, 00:00 gone, ")
    assert "part 2 4 of 4 steps, 00:00 gone, 00:00 left, loss 2" in lines
    assert lines[2].endswith("left, loss 0")  # of the step before


def test_what_is_done_at_once_says_nothing(capsys):
    steps(progress.progress_bar(total=3, unit="step"))
    assert [*progress.progress_bar("abc", unit="letter")] == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    steps(progress.progress_bar(total=3, unit="step"))
    assert "\rpart 2" in capsys.readouterr().err


def test_without_an_end(monkeypatch, capsys):
    """Of a film it is not known how long it is."""
    monkeypatch.setattr(progress, "EVERY", 0)
    bar = progress.progress_bar(total=None, unit="image")
    bar.update(5)
    bar.close()
    assert "5 of ? images, " in capsys.readouterr().err


@pytest.mark.parametrize("many", [1, 1000])
def test_no_line_for_every_step(monkeypatch, capsys, many):
    """tqdm asks the clock only now and then: a line a minute costs the steps nothing."""
    bar = progress.progress_bar(total=many, unit="step")
    bar.start_t -= 2 * progress.EVERY
    bar.last_print_t -= 2 * progress.EVERY
    for _ in range(many):
        bar.update()
    assert len(capsys.readouterr().err.splitlines()) == 1
