"""Agreement of metrics: against scipy, values by hand, missing and constant scores."""

import json
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

import ppvae
from ppvae.evaluation.disentanglement import metric_agreement

KINDS = {"pearson": stats.pearsonr, "kendall": stats.kendalltau, "spearman": stats.spearmanr}


def random_scores(runs=25):
    rng = np.random.default_rng(0)
    shared = rng.random(runs)
    return {"a": shared, "b": shared + rng.random(runs), "c": np.round(rng.random(runs), 1)}


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_and_p_values_are_those_of_scipy(kind):
    scores = random_scores()
    found = metric_agreement({name: column.tolist() for name, column in scores.items()})
    for i, one in enumerate(scores):
        for j, other in enumerate(scores):
            if i == j:
                continue
            expected = KINDS[kind](scores[one], scores[other])
            assert found.coefficients[kind][i, j] == pytest.approx(expected.statistic)
            assert found.p_values[kind][i, j] == pytest.approx(expected.pvalue)
            assert found.between(one, other)[kind] == pytest.approx(tuple(expected))
    assert (found.num_runs == 25).all()
    assert (found.coefficients[kind].diagonal() == 1).all()
    assert np.isnan(found.p_values[kind].diagonal()).all()


def test_coefficients_of_four_runs_by_hand():
    """Ranks 1234 and 2134: one of six pairs is discordant, sum d^2 = 2; deviations of (-3, -1, 1, 3) / 2 and so on."""
    found = metric_agreement({"a": [1, 2, 3, 4], "b": [2, 1, 3, 4]}).between("a", "b")
    assert found["kendall"][0] == pytest.approx((5 - 1) / 6)
    assert found["spearman"][0] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found["pearson"][0] == pytest.approx((3 + 3 + 1 + 9) / 20)
    assert found["kendall"][1] == pytest.approx(2 * 4 / 24)  # 4 of 24 orders have at most one discordant pair


@pytest.mark.parametrize("runs", [3, 4, 8])
def test_spearmans_p_value_of_one_order_counts_both_directions(runs):
    """Two of n! orders; scipy's own is 0."""
    scores = {"a": range(runs), "b": [-(run**3) for run in range(runs)]}
    assert metric_agreement(scores).between("a", "b")["spearman"] == pytest.approx((-1, 2 / math.factorial(runs)))


def test_spearmans_p_value_of_few_runs_is_that_of_all_permutations():
    one, other = [1.0, 2.0, 2.0, 5.0, 4.0, 9.0], [0.3, 0.1, 0.4, 0.4, 0.8, 0.5]
    expected = stats.permutation_test(
        (one,),
        lambda values: abs(stats.spearmanr(values, other).statistic),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=np.inf,
    )
    found = metric_agreement({"a": one, "b": other}).between("a", "b")["spearman"]
    assert found == pytest.approx((stats.spearmanr(one, other).statistic, expected.pvalue))


def test_kendall_corrects_for_ties():
    """Tau-b: 2 concordant pairs, one tie in a: 2 / sqrt((3 - 1) 3)."""
    found = metric_agreement({"a": [1, 1, 2], "b": [1, 2, 3]}).between("a", "b")
    assert found["kendall"][0] == pytest.approx(2 / 6**0.5)


def test_runs_without_a_score_count_for_no_pair_with_that_metric():
    scores = {"a": [1.0, 2.0, None, 4.0, 8.0], "b": [2.0, 1.0, 5.0, np.nan, 9.0], "c": [1.0, 3.0, 2.0, 5.0, 4.0]}
    found = metric_agreement(scores)
    assert found.num_runs.tolist() == [[4, 3, 4], [3, 4, 4], [4, 4, 5]]
    expected = stats.pearsonr([1, 2, 8], [2, 1, 9]).statistic
    assert found.between("a", "b")["pearson"][0] == pytest.approx(expected)
    assert found.between("b", "c")["kendall"][0] == pytest.approx(stats.kendalltau([2, 1, 5, 9], [1, 3, 2, 4])[0])


@pytest.mark.parametrize(
    "column", [[0.5] * 4, [None, None, 0.1, 0.2], [None] * 4], ids=["constant", "two runs", "no runs"]
)
def test_coefficient_without_a_definition_is_nan_and_the_others_stay(column, recwarn):
    found = metric_agreement({"a": [1, 2, 3, 4], "b": column, "c": [4, 2, 3, 1]})
    for kind in KINDS:
        assert np.isnan(found.coefficients[kind][1]).all()
        assert np.isnan(found.p_values[kind][1]).all()
        assert np.isfinite(found.coefficients[kind][[0, 0, 2], [0, 2, 2]]).all()
    assert not len(recwarn)  # scipy warns of constant input


def test_title_of_the_figure_has_the_least_and_the_most_runs():
    figure = metric_agreement({"a": [1, 2, 3, 4], "b": [2, None, 3, 4]}).plot()
    assert figure.get_suptitle() == "agreement over 3 to 4 runs"


def test_metric_that_is_constant_over_the_common_runs_is_constant():
    found = metric_agreement({"a": [1, 2, 3, None], "b": [0.5, 0.5, 0.5, 0.9]})
    assert np.isnan(found.coefficients["pearson"][0, 1])
    assert found.coefficients["pearson"][1, 1] == 1


def test_agreement_is_written_as_json_and_shown_as_table_and_figure():
    found = metric_agreement({"a": [1, 2, 3, 4], "b": [2, 1, 3, 4], "c": [5, 5, 5, 5]})
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["names"] == ["a", "b", "c"]
    assert written["pearson"][0] == [1.0, pytest.approx(0.8), None]
    assert written["pearson_p"][0][0] is None
    console = Console(width=100)
    with console.capture() as capture:
        console.print(found.table())
    assert "0.800 (0.2)" in capture.get()
    assert "0.667 (0.33)" in capture.get()
    figure = found.plot()
    assert figure.get_suptitle() == "agreement over 4 runs"
    panels = figure.axes[:3]
    assert [axes.get_title() for axes in panels] == [f"{kind.capitalize()} correlation" for kind in KINDS]
    assert np.ma.getmaskarray(np.ma.masked_invalid(panels[0].images[0].get_array()))[2].all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": [1, 2, 3]}, r"at least two metrics .*got numbers of runs \{'a': 3\}"),
        ({"a": [1, 2, 3], "b": [1, 2]}, r"the same runs, got numbers of runs \{'a': 3, 'b': 2\}"),
        ({"a": [1, 2, 3], "b": [1, 2, np.inf]}, "expected finite scores.*got inf for b"),
    ],
)
def test_agreement_refuses_other_tables(scores, message):
    with pytest.raises(ppvae.DataError, match=message):
        metric_agreement(scores)


def test_between_refuses_a_name_without_scores():
    found = metric_agreement({"a": [1, 2, 3], "b": [1, 2, 4]})
    with pytest.raises(ppvae.DataError, match="names among a, b, got mig"):
        found.between("a", "mig")
