"""REPRODUCTION.md: every claim with what was published, what was measured and whether it holds, from stored results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dashboards.claims import CLAIMS
from dashboards.evidence import Evidence, load, number
from dashboards.page import Section, escape, table
from dashboards.page import page as html_page
from dashboards.reproduction_plots import plots
from dashboards.verdicts import FAILS, HOLDS, OPEN, Verdict
from sweeps.experiments import EXPERIMENTS, PAPERS, PROTOCOLS, Experiment

_HEAD = """# Reproduction

Written by `musweep reproduce --write` from the results in `docs/reproduction/`, never by hand. To measure one again:
`musweep reproduce NAME --protocol reduced --again`; `--protocol full` is the paper's own protocol.

*Published* is what the paper prints, under its full protocol; *measured* is ours, under the protocol named, most of
them reduced to fit two cores, and for CURVES, FACES and Shapeset-3x2 on data that only resemble the paper's. They
stand side by side to compare directions, not sizes. Unless said otherwise a measured value is the median over seeds
(smallest to largest), at the learning rate with the smallest median, as the papers chose theirs. p is of the exact
Wilcoxon signed-rank test, paired by seed, one-sided in the claim's direction; a claim holds where p is at most .05,
does not where the opposite is, and is not distinguishable between. With five seeds p cannot fall below .031. A claim
without p is judged as it reads, by medians, or by the rule in brackets.
"""


@dataclass(frozen=True)
class _Judged:
    """An experiment's stored result, with its claims judged from it."""

    experiment: Experiment
    evidence: Evidence
    verdicts: list[Verdict]


def page(results: Path) -> str:
    """The whole page, as Markdown."""
    return "\n".join(_lines(_judge(results))).rstrip() + "\n"


def pictures(results: Path) -> str:
    """The same results as plots, each with its claims: one HTML file with nothing to load from anywhere."""
    from plotly.offline import get_plotlyjs

    judged = _judge(results)
    sections = [
        Section(
            key=f"{each.experiment.name}-{each.evidence.protocol}",
            title=f"{each.experiment.paper.upper()} {each.experiment.title}",
            caption=_protocol(each).replace("`", ""),
            figures=plots(each.evidence),
            markup=_claims(each.verdicts),
        )
        for each in judged
    ]
    head = f"<h1>Reproduction</h1>\n<p>{escape(_counts(judged))}</p>"
    foot = "musweep reproduce, from the results in docs/reproduction; REPRODUCTION.md says what the numbers are."
    return html_page("musweep: reproduction", head, sections, foot, get_plotlyjs())


def _claims(verdicts: list[Verdict]) -> str:
    """The claims as a table whose texts wrap."""
    if not verdicts:
        return ""
    columns = ("claim", "verdict", "published", "measured")
    texts = [(v.claim, v.verdict, v.published, f"{v.measured}{f' ({v.note})' if v.note else ''}") for v in verdicts]
    rows = [[(words, None) for words in row] for row in texts]
    return f'<div class="wrapped">{table(columns, rows, main=-1, words={0, 1, 2, 3})}</div>'


def _judge(results: Path) -> list[_Judged]:
    found = []
    for experiment in EXPERIMENTS.values():
        for protocol in PROTOCOLS:
            evidence = _evidence(results, experiment, protocol)
            if evidence is not None:
                verdicts = [claim(evidence) for claim in CLAIMS.get(experiment.name, ())]
                found.append(_Judged(experiment, evidence, verdicts))
    return found


def _counts(judged: list[_Judged]) -> str:
    every = [verdict for each in judged for verdict in each.verdicts]
    held, unclear, failed = (sum(v.verdict == word for v in every) for word in (HOLDS, OPEN, FAILS))
    return f"Of {len(every)} claims {held} hold, {unclear} cannot be told from chance, {failed} do not hold."


def _lines(judged: list[_Judged]) -> Iterator[str]:
    yield _HEAD
    yield f"{_counts(judged)}\n"
    for paper, title in PAPERS.items():
        yield f"## {title}\n"
        for each in judged:
            if each.experiment.paper == paper:
                yield from _section(each)
    yield from _doomed(judged)
    stored = {each.experiment.name for each in judged}
    missing = [experiment for experiment in EXPERIMENTS.values() if experiment.name not in stored]
    if missing:
        yield "## Ready and not run\n"
        yield "| experiment | what |\n| --- | --- |"
        for experiment in missing:
            yield f"| `{experiment.name}` | {experiment.title} |"


def _evidence(results: Path, experiment: Experiment, protocol: str) -> Evidence | None:
    path = results / f"{experiment.name}.{protocol}.json"
    return load(path) if path.is_file() else None


def _doomed(judged: list[_Judged]) -> Iterator[str]:
    """What `early_stopping.doomed` would have saved in each sweep, and whether it would have dropped the best trial."""
    rows = [_doom(each) for each in judged if each.evidence.runs and each.experiment.metrics]
    if not rows:
        return
    yield "## Doomed at birth\n"
    yield (
        "What skipping nets that cannot start (`early_stopping: {doomed: skip}`, default bounds) would have done\n"
        "to these sweeps, all of whose trials were trained. The rule looks at a feed-forward net before its first\n"
        "update.\n"
    )
    yield "| sweep | trials | doomed | updates saved | best of the doomed | best of all | the best lost |"
    yield "| --- | --: | --: | --: | --: | --: | --- |"
    yield from rows
    yield ""


def _doom(judged: _Judged) -> str:
    runs, metric = judged.evidence.runs, judged.experiment.metrics[0]
    doomed = [run for run in runs if run.doomed]
    saved = sum(run.updates for run in doomed) / sum(run.updates for run in runs)
    best, worst = min(run.value(metric) for run in runs), min((run.value(metric) for run in doomed), default=math.inf)
    shown = number(worst) if doomed else "-"
    cells = (len(runs), len(doomed), f"{saved:.0%}", shown, number(best), "yes" if doomed and worst <= best else "no")
    return f"| `{judged.experiment.name}` | {' | '.join(map(str, cells))} |"


def _protocol(judged: _Judged) -> str:
    evidence = judged.evidence
    about = f": {evidence.about}" if evidence.about else ""
    trials = f"; {len(evidence.runs)} trials" if evidence.runs else ""
    cost = f"{_time(evidence.seconds)} of training, {evidence.measured_on}"
    data = f" Data: {evidence.data}." if evidence.data else ""
    return f"`{judged.experiment.name}`, {evidence.protocol} protocol{about}{trials}; {cost}.{data}"


def _section(judged: _Judged) -> Iterator[str]:
    yield f"### {judged.experiment.title}\n"
    yield f"{_protocol(judged)}\n"
    if judged.verdicts:
        yield "| claim | published | measured | |\n| --- | --- | --- | --- |"
        for verdict in judged.verdicts:
            note = f" ({verdict.note})" if verdict.note else ""
            yield f"| {verdict.claim} | {verdict.published} | {verdict.measured}{note} | **{verdict.verdict}** |"
        yield ""
    else:
        yield "No claim is judged: the measurements are stored.\n"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
