"""All comparisons of the claims in one picture."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from reflect_rl.envs.registry import get
from reflect_rl.report import style
from reflect_rl.report.rule import Rule, read_rule
from reflect_rl.report.style import COLOURS, FAINT, INK, STYLE, entry
from reflect_rl.report.tables import versus

CAPTION = (
    "The differences in success that the claims are judged by, with unadjusted 95% intervals over seeds and tasks, "
    "while verdicts adjust p for all comparisons of the profile. Look at which intervals lie wholly on one side "
    "of 0, and at why the others are undecided."
)
VERDICTS = {  # colour, and whether the dot is filled
    "reproduced": (COLOURS["reflect_rl"], True),
    "not reproduced": (COLOURS["reflect_rl_no_negatives"], True),
    "equivalent": (COLOURS["sft_rl"], True),
    "at the ceiling": (COLOURS["sft_rl"], True),
    "undecided": ("#808080", False),
}


@matplotlib.rc_context(STYLE)
def forest(claims: pd.DataFrame, rule: Rule | None = None) -> Figure | None:
    """Each comparison of `claims.claims_table` that has a difference: a dot with its interval below its claim, in points.

    None where there is none.
    """
    rule, rows = rule or read_rule(), claims[claims["effect"].notna()]
    if rows.empty:
        return None
    figure = Figure(figsize=(6.9, 0.75 + 0.165 * len(rows) + 0.3 * rows["claim"].nunique()), layout="constrained")
    axis, y, names, places = figure.subplots(), 0.0, [], []
    margin = blended_transform_factory(figure.transFigure, axis.transData)
    for claim, sentence in rule.claims.items():
        own = rows[rows["claim"] == claim]
        if own.empty:
            continue
        y += 0.9
        said = axis.text(0.01, y, f"{claim}. {sentence}", weight="bold", va="center", transform=margin)
        said.set(in_layout=False, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        several = own["comparison"].nunique() > 1
        for row in own.itertuples():
            y += 1.6 if several else 1  # for a name of two lines
            names.append(_name(row, several))
            places.append(y)
            colour, filled = VERDICTS[row.verdict]
            bar = 100 * np.clip([[row.effect - row.ci_low], [row.ci_high - row.effect]], 0, None)
            dot = {"markersize": 4, "elinewidth": 1.2, "markerfacecolor": colour if filled else "white"}
            axis.errorbar(100 * row.effect, y, xerr=bar, fmt="o", color=colour, **dot)
            said = f"undecided: {row.note.partition(';')[0]}" if row.verdict == "undecided" else row.verdict
            axis.text(1.01, y, said, color=colour, va="center", transform=axis.get_yaxis_transform(), size=7)
        y += 0.6
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.axvspan(-100 * rule.margin, 100 * rule.margin, color=FAINT, alpha=0.3, linewidth=0)
    axis.set(ylim=(y + 0.2, 0.2), xlabel="Difference in test success (percentage points)")
    style.name_ticks(axis, "y", names, places)
    axis.spines["left"].set_visible(False)
    looks = {"linestyle": "none", "marker": "s", "color": FAINT, "alpha": 0.5, "markersize": 7}
    open_dot = {"linestyle": "none", "marker": "o", "color": VERDICTS["undecided"][0], "markerfacecolor": "white"}
    within = entry(f"within {100 * rule.margin:.0f} points: no difference that matters", **looks)
    style.legend_below(figure, [within, entry("undecided", markersize=4, **open_dot)])
    return figure


def _name(row, compared: bool) -> str:
    """Where a comparison was made, and what was compared where its claim has several."""
    spec = get(row.env)
    where = f"{spec.label}: {spec.title(row.setting)}" + f", regime {row.regime}" * bool(row.regime)
    return f"{where}\n({versus(row.comparison)})" if compared else where
