"""Learning curves: only like quantities share an axis."""

import io
import math

import pytest

from ppvae import plots


def row(epoch: int, **numbers: float) -> dict:
    """A row of metrics; in the names "__" stands for "/"."""
    return {"epoch": epoch, "step": 10 * epoch, "seconds": 1.0 * epoch} | {
        name.replace("__", "/"): value for name, value in numbers.items()
    }


def validated(loss: float, **parts: float) -> dict:
    """The loss and the parts of the validation data."""
    return {"validation_loss": loss} | {f"validation/{part.replace('__', '/')}": parts[part] for part in parts}


def contents(figure) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Points of each curve, by the title of its panel and its label in the legend (its colour)."""
    handles = figure.legends[0].get_lines() if figure.legends else []
    labels = [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []
    names = {handle.get_color(): label for handle, label in zip(handles, labels, strict=True)}
    return {
        panel.get_title(): {
            names.get(line.get_color(), ""): [tuple(point) for point in line.get_xydata().tolist()]
            for line in panel.lines
        }
        for panel in figure.axes
    }


def test_learning_curves_compares_the_parts_that_training_and_validation_share():
    metrics = [
        row(1, loss=100, distortion=80, rate__z=20) | validated(104, distortion=83, rate__z=21),
        row(2, loss=90, distortion=68, rate__z=22) | validated(99, distortion=76, rate__z=23),
    ]
    found = contents(plots.learning_curves(metrics))
    assert found == {
        "distortion + rate/z": {"training": [(1, 100), (2, 90)], "validation": [(1, 104), (2, 99)]},
        "distortion": {"training": [(1, 80), (2, 68)], "validation": [(1, 83), (2, 76)]},
        "rate/z": {"training": [(1, 20), (2, 22)], "validation": [(1, 21), (2, 23)]},
    }


def test_learning_curves_compares_unlabelled_rows_where_labelled_rows_have_further_terms():
    """The loss of a step, 98, is below the validation loss, 114, although the same quantity is 112 and 114."""
    metrics = [
        row(1, loss=98, distortion=70, rate__z=22, classifier__y=6)
        | row(1, unlabelled_loss=112, unlabelled__distortion=90, unlabelled__rate__z=22)
        | validated(114, distortion=91, rate__z=23)
    ]
    found = contents(plots.learning_curves(metrics))
    assert found["distortion + rate/z"] == {"training, unlabelled rows": [(1, 112)], "validation": [(1, 114)]}
    assert found["distortion"] == {"training, unlabelled rows": [(1, 90)], "validation": [(1, 91)]}
    assert found["loss"] == {"": [(1, 98)]}
    assert found["classifier/y"] == {"": [(1, 6)]}
    assert list(found) == ["distortion + rate/z", "distortion", "rate/z", "loss", "classifier/y"]


def test_learning_curves_sums_only_parts_that_both_have():
    metrics = [
        row(1, loss=108, distortion=80, rate__z=20, penalty=8) | validated(109, distortion=82, rate__z=21, prior=6)
    ]
    found = contents(plots.learning_curves(metrics))
    assert found["distortion + rate/z"] == {"training": [(1, 100)], "validation": [(1, 103)]}
    alone = {"loss": 108, "validation_loss": 109, "penalty": 8, "validation/prior": 6}
    for title, value in alone.items():
        assert found.pop(title) == {"": [(1, value)]}
    assert list(found) == ["distortion + rate/z", "distortion", "rate/z"]


def test_learning_curves_puts_totals_apart_if_no_part_is_shared():
    metrics = [row(1, loss=9, a=9) | validated(8, b=8)]
    assert contents(plots.learning_curves(metrics)) == {
        "loss": {"": [(1, 9)]},
        "a": {"": [(1, 9)]},
        "validation_loss": {"": [(1, 8)]},
        "validation/b": {"": [(1, 8)]},
    }


def test_learning_curves_compares_totals_of_estimators_without_parts():
    assert contents(plots.learning_curves([row(1, loss=9, validation_loss=8)])) == {
        "loss": {"training": [(1, 9)], "validation": [(1, 8)]}
    }
    split = row(1, loss=7, unlabelled_loss=9, validation_loss=8)
    assert contents(plots.learning_curves([split])) == {
        "unlabelled_loss": {"training, unlabelled rows": [(1, 9)], "validation": [(1, 8)]},
        "loss": {"": [(1, 7)]},
    }


def test_learning_curves_without_validation_draws_each_number_alone():
    metrics = [row(1, loss=9, distortion=9, accuracy=0.5), row(2, loss=8, distortion=8, accuracy=0.75)]
    assert contents(plots.learning_curves(metrics)) == {
        "loss": {"": [(1, 9), (2, 8)]},
        "distortion": {"": [(1, 9), (2, 8)]},
        "accuracy": {"": [(1, 0.5), (2, 0.75)]},
    }


def test_learning_curves_skips_epochs_without_a_number():
    metrics = [
        row(1, loss=9, distortion=9),
        row(2, loss=8, distortion=8, note=None) | validated(8.5, distortion=8.5),
        row(3, loss=7, distortion=7),
    ]
    assert contents(plots.learning_curves(metrics)) == {
        "distortion": {"training": [(1, 9), (2, 8), (3, 7)], "validation": [(2, 8.5)]}
    }


def test_learning_curves_fits_the_range_of_losses_to_later_epochs():
    metrics = [row(epoch, loss=100 + 1000 * math.exp(-epoch), error=1 / epoch) for epoch in range(1, 21)]
    loss, error = plots.learning_curves(metrics).axes
    assert loss.get_ylim()[0] < 100 < loss.get_ylim()[1] < 110  # 467 in the first epoch, 107 in the fifth
    assert error.get_ylim()[1] > 1
    assert plots.learning_curves(metrics[:9]).axes[0].get_ylim()[1] > 467


def test_learning_curves_draws_losses_that_are_not_finite():
    figure = plots.learning_curves([row(epoch, loss=math.nan) for epoch in range(1, 13)])
    figure.savefig(io.BytesIO())
    assert len(figure.axes) == 1


@pytest.mark.parametrize("numbers", [1, 2, 3, 4, 7])
def test_learning_curves_leaves_no_empty_panel(numbers):
    figure = plots.learning_curves([row(1, **{f"n{i}": i for i in range(numbers)})])
    assert [panel.get_title() for panel in figure.axes] == [f"n{i}" for i in range(numbers)]


def test_learning_curves_refuses_no_metrics():
    with pytest.raises(ValueError, match="metrics of at least one epoch, got none"):
        plots.learning_curves([])
