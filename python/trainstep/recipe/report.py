"""The report of a recipe: one HTML file with its plots and its style in it, which loads nothing and runs nothing."""

import math
from collections.abc import Iterable, Sequence
from html import escape

import trainstep
from trainstep.recipe.charts import Line, chart
from trainstep.recipe.results import Candidate, Curves, Grid, Numbers, Overfit, RateTest, Recipe

# Okabe & Ito's blue and vermilion in two strengths, for light and dark pages; on both the contrast to the page is above 4.5 to 1.
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f5f6f8; --ink: #1b1f24; --soft: #555d66; --rule: #d5d9de;
  --one: #0067a3; --two: #b84a00; --three: #00785a; --good: #006b4f; --bad: #a33b00; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1e2226; --ink: #e8eaed; --soft: #a9b1ba; --rule: #3a4047;
  --one: #6cb8ee; --two: #ff9a56; --three: #4fd0a7; --good: #4fd0a7; --bad: #ff9a56; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: .875rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 0 0 .25rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .25rem 0 .75rem; }
section { background: var(--card); border-radius: .5rem; padding: .875rem; margin: 1rem 0; }
.soft, .legend, figcaption, footer { color: var(--soft); font-size: .9rem; }
.verdict { font-weight: 600; white-space: nowrap; }
.yes { color: var(--good); } .no { color: var(--bad); }
ol.summary { list-style: none; padding: 0; margin: 1rem 0; border-top: 1px solid var(--rule); }
ol.summary li { display: flex; justify-content: space-between; gap: 1rem; padding: .4rem 0; border-bottom: 1px solid var(--rule); }
ol.summary a { color: var(--ink); }
figure { margin: 1rem 0 0; }
figure > svg { display: block; width: 100%; max-width: 36rem; height: auto; }
figcaption { margin-bottom: .25rem; }
.legend span { white-space: nowrap; margin-right: 1rem; }
.key { width: 24px; height: 10px; }
svg text { fill: var(--soft); font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
.grid, .axis { stroke: var(--rule); fill: none; } .axis { stroke: var(--soft); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.mark { fill: none; stroke: var(--two); stroke-width: 1.5; stroke-dasharray: 2 3; }
.one { stroke: var(--one); } .two { stroke: var(--two); stroke-dasharray: 6 3; }
.three { stroke: var(--three); stroke-dasharray: 2 3; }
.dot { stroke: none; } .dot.one { fill: var(--one); } .dot.two { fill: var(--two); } .dot.three { fill: var(--three); }
.dot.points { fill: var(--soft); opacity: .6; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { text-align: right; padding: .25rem .2rem; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tr.best td { font-weight: 700; }
table.settings td { text-align: left; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; font: .85rem/1.45 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; margin: .5rem 0 0; }
@media (min-width: 40rem) { svg text { font-size: 10.5px; } section { padding: 1.25rem; } }
@media print { section { break-inside: avoid; } }
"""

_MOST_ROWS = 30  # of the table of candidates
_STYLES = ("one", "two", "three", "points")  # of candidates, by how far they got; those beyond are in the table alone


def html(recipe: Recipe) -> str:
    """Give the report as one page."""
    figures = {
        "overfit": lambda: _overfit(recipe.overfit),
        "learning rate": lambda: _rate_test(recipe.rate_test),
        "grid": lambda: _grid(recipe.grid),
        "curves": lambda: _curves(recipe.curves),
    }
    questions = {
        "initial loss": "Does training begin where it should?",
        "overfit": "Can the network learn a few batches by heart?",
        "learning rate": "Which rate makes the loss fall?",
        "grid": "Which rate and decay are best on unseen data?",
        "curves": "What do the learning curves say?",
    }
    summary, sections = [], []
    for number, (title, step) in enumerate(recipe.steps().items(), 1):
        verdict = f'<span class="verdict {"yes" if step.ok else "no"}">{"✓ yes" if step.ok else "✗ no"}</span>'
        shown = verdict
        if isinstance(step, Curves):
            shown = f'<span class="verdict {"yes" if step.ok else "no"}">{escape(step.verdict)}</span>'
        summary.append(f'<li><a href="#step-{number}">{number}. {title.capitalize()}</a> {shown}</li>')
        drawn = "".join(figures[title]()) if title in figures else ""
        sections.append(
            f'<section id="step-{number}"><h2>{number}. {title.capitalize()}</h2>'
            f'<p class="soft">{questions[title]} {shown}</p><p>{escape(_sentence(step.meaning))}</p>{drawn}</section>'
        )
    heading = escape(recipe.about)
    settings = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_shown(value))}</td></tr>" for name, value in recipe.settings.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Recipe: {heading}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Training recipe</h1>
<p>{heading}</p>
<ol class="summary">
{chr(10).join(summary)}
</ol>
{chr(10).join(sections)}
<section id="settings"><h2>The settings</h2>
<table class="settings"><tbody>{settings}</tbody></table>
<h3>As a Python call</h3>
<pre><code>{escape(recipe.call)}</code></pre>
</section>
</main>
<footer>trainstep {escape(trainstep.__version__)}, <code>ts.recipe.run</code></footer>
</body>
</html>
"""


def _sentence(text: str) -> str:
    """Begin with a capital, end with a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "of the function" if value is None else str(value)


def _figure(caption: str, drawn: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawn}</figure>"


def _overfit(step: Overfit) -> Iterable[str]:
    updates = [(i + 1) * step.batches for i in range(len(step.loss))]
    for name, numbers in (("loss", step.loss), ("accuracy", step.accuracy)):
        if numbers is not None:
            drawn = chart(name.capitalize(), "updates", name, [Line(name, updates, numbers, "one")])
            yield _figure(f"{name.capitalize()} on the {step.rows} rows, after each pass over them at rate {step.rate:g}", drawn)


def _rate_test(step: RateTest) -> Iterable[str]:
    # What a batch shows while the loss blows up would press all else flat.
    highest = max(step.smoothed, default=0.0)
    seen = [loss if loss <= 1.2 * highest else math.nan for loss in step.loss]
    lines = [Line("one batch", step.rates, seen, "points", dots=True), Line("smoothed", step.rates, step.smoothed, "one")]
    drawn = chart("Loss while the rate grows", "learning rate", "loss", lines, log_x=True, mark=step.suggestion)
    yield _figure("Loss while the learning rate grows with every update", drawn)
    updates = range(1, len(step.trial) + 1)
    drawn = chart("Loss at the suggested rate", "updates", "loss", [Line("loss", updates, step.trial, "one")])
    yield _figure(f"Loss of each batch at the suggested rate, {step.suggestion:g}", drawn)


def _grid(step: Grid) -> Iterable[str]:
    rows = "".join(_row(candidate, candidate is step.best) for candidate in step.candidates[:_MOST_ROWS])
    accurate = any(candidate.accuracy is not None for candidate in step.candidates)
    last = "<th>accuracy</th>" if accurate else ""
    head = f"<thead><tr><th>rate</th><th>decay</th><th>epochs</th><th>loss</th>{last}</tr></thead>"
    if len({candidate.rate for candidate in step.candidates}) > 1:
        yield _figure("Validation loss of each candidate, after the epochs that it was trained for", _by_rate(step))
    yield f"<h3>All candidates, on the validation part</h3><table>{head}<tbody>{rows}</tbody></table>"
    if len(step.candidates) > _MOST_ROWS:
        yield f'<p class="soft">The best {_MOST_ROWS} of {len(step.candidates)}.</p>'


def _by_rate(step: Grid) -> str:
    """Draw a dot for each candidate, coloured by how far it got."""
    dots = []
    for style, epochs in zip(_STYLES, sorted({c.epochs for c in step.candidates}, reverse=True), strict=False):
        chosen = [c for c in step.candidates if c.epochs == epochs]
        name = f"{epochs} {'epoch' if epochs == 1 else 'epochs'}"
        dots.append(Line(name, [c.rate for c in chosen], [c.loss for c in chosen], style, dots=True))
    return chart("Validation loss", "learning rate", "validation loss", dots, log_x=True)


def _row(candidate: Candidate, best: bool) -> str:
    accuracy = "" if candidate.accuracy is None else f"<td>{candidate.accuracy:.3f}</td>"
    loss = f"{candidate.loss:.4g}" if math.isfinite(candidate.loss) else "diverged"
    cells = f"<td>{candidate.rate:g}</td><td>{candidate.decay:g}</td><td>{candidate.epochs}</td><td>{loss}</td>{accuracy}"
    return f'<tr class="best">{cells}</tr>' if best else f"<tr>{cells}</tr>"


def _curves(step: Curves) -> Iterable[str]:
    for title, train, validation in (("Loss", step.loss, step.val_loss), ("Accuracy", step.accuracy, step.val_accuracy)):
        if train is not None and validation is not None:
            lines = _pair(train, validation)
            yield _figure(f"{title} of each epoch", chart(title, "epoch", title.lower(), lines))


def _pair(train: Numbers, validation: Numbers) -> Sequence[Line]:
    epochs = range(1, len(train) + 1)
    return [Line("training", epochs, train, "one"), Line("validation", epochs, validation, "two")]
