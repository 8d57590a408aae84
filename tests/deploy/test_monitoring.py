"""Alerts, dashboard and runbooks speak of metrics and pages that exist, with the limits that `make status` has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Histogram

from deploy.monitoring import make_dashboard
from deploy.status.exposition import NAMES
from deploy.status.facts import Facts, Limits, judge
from streaming.metrics import METRICS, LandingMetrics

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
RUNBOOKS = ROOT / "docs" / "runbooks"
SAID_OTHERWISE = {
    "landing_rows_per_second",  # the rate of landing_rows_total says it for any span
    "landing_next_offset",  # a position; how far it is from the end is landing_lag_events
}
# Of Grafana's list (packages/grafana-data/src/valueFormats/categories.ts) those that numbers of a line can have; a unit
# that Grafana does not know is shown as a suffix, "3 bytes/s" unscaled, without a word.
GRAFANA_UNITS = {
    "none", "short", "percent", "percentunit", "bytes", "decbytes", "Bps", "ns", "µs", "ms", "s", "m", "h", "d",
    "dtdurations", "dateTimeAsIso", "dateTimeFromNow", "ops", "reqps", "rps", "wps", "cps", "iops",
}  # fmt: skip
NOT_OURS = {"up"}  # Prometheus makes it
WORDS = {
    "absent", "by", "for", "histogram_quantile", "increase", "or", "rate", "sum", "time",
    "topic", "topic_partition", "le", "kind", "reason", "service", "job", "m",
}  # fmt: skip


def series() -> set[str]:
    """Every name that the consumer and the monitor expose."""
    names = {f"line_{name}" for name in NAMES} | {"line_part_up"}
    for family in LandingMetrics().registry.collect():
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
        if family.type == Histogram._type:
            names |= {f"{family.name}_bucket", f"{family.name}_sum", f"{family.name}_count"}
    return names


def names_in(expression: str) -> set[str]:
    without_strings = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"[a-z_]+[a-z0-9_]*", re.sub(r"\[\w+\]|\d+\w*", " ", without_strings))) - WORDS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_numbers_that_exist(rule: dict[str, Any]) -> None:
    asked = names_in(rule["expr"])
    assert asked
    assert asked - series() - NOT_OURS == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_its_weight_and_a_runbook_that_exists(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert (ROOT / rule["annotations"]["runbook"]).is_file()


def test_alerts_have_the_limits_of_the_status() -> None:
    limits = Limits()
    expected = {
        "LandingLag": ("line_unlanded_events > ", limits.unlanded_events),
        "LandingStands": ("line_oldest_unlanded_seconds > ", limits.unlanded_s),
        "DaysPending": ("line_oldest_pending_seconds > ", limits.pending_s),
        "MartsStale": ("line_mart_behind_seconds > ", limits.mart_behind_s),
        "ReportStale": ("line_report_behind_seconds > ", limits.report_behind_s),
        "RunsFail": ("line_runs_failed >= ", limits.failed_runs),
    }
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for alert, (start, limit) in expected.items():
        assert found[alert] == f"{start}{limit:g}", alert


def test_what_the_status_calls_broken_or_late_has_an_alert() -> None:
    runbooks_of_alerts = {Path(rule["annotations"]["runbook"]).stem for rule in RULES}
    from tests.deploy.test_status import NOW, WELL

    bad = Facts(**(vars_of(WELL) | {"newly_lost_offsets": 1, "unaccounted": 1, "dead_letters": 1, "failed_runs": 9,
        "differing_days": ("2010-12-01",), "is_refresh_failed": True, "unlanded": 10**6, "asked_at": NOW,
        "is_lake_restored": True, "troubles": {"kafka": "no"}}))  # fmt: skip
    assert {finding.runbook for finding in judge(bad)} <= runbooks_of_alerts


def vars_of(facts: Facts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in facts.__dataclass_fields__}


def test_the_dashboard_is_what_its_script_writes() -> None:
    assert make_dashboard.TARGET.read_text(encoding="utf-8") == make_dashboard.text()


def test_the_dashboard_shows_numbers_that_exist_and_every_number_is_shown_or_alerted() -> None:
    panels = json.loads(make_dashboard.TARGET.read_text(encoding="utf-8"))["panels"]
    shown = {name for panel in panels for target in panel["targets"] for name in names_in(target["expr"])}
    assert shown - series() == set()
    alerted = {name for rule in RULES for name in names_in(rule["expr"])}
    never_seen = {f"line_{name}" for name in NAMES} - shown - alerted
    assert never_seen == set()


def test_every_number_of_the_landing_is_shown_or_alerted() -> None:
    panels = make_dashboard.dashboard()["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in names_in(target["expr"])}
    asked |= {name for rule in RULES for name in names_in(rule["expr"])}
    families = {f"landing_{metric.name}" for metric in METRICS}
    seen = {family for family in families for name in asked if name.removesuffix("_total") == family}
    seen |= {name.removesuffix("_bucket") for name in asked}
    assert families - seen == SAID_OTHERWISE


def test_panels_have_ids_and_letters_of_their_own_and_units_that_grafana_knows() -> None:
    panels = make_dashboard.dashboard()["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters, panel["title"]
        assert len(set(letters)) == len(letters), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in GRAFANA_UNITS, panel["title"]


def test_every_panel_asks_the_prometheus_that_is_chosen_in_the_dashboards_head() -> None:
    page = make_dashboard.dashboard()
    (variable,) = page["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    wanted = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    for panel in page["panels"]:
        assert panel["datasource"] == wanted, panel["title"]
        assert [target["datasource"] for target in panel["targets"]] == [wanted] * len(panel["targets"])
    provisioned = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert variable["current"]["value"] in {source["uid"] for source in provisioned["datasources"]}


def test_the_dashboard_has_a_form_that_the_grafana_of_compose_migrates_from() -> None:
    """Grafana 12 lifts older schemas to its own; below 36 data sources were names, not uids."""
    page = make_dashboard.dashboard()
    assert 36 <= page["schemaVersion"] <= 41
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", page["uid"])
    assert page.get("id") is None


def test_panels_do_not_lie_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in make_dashboard.dashboard()["panels"]:
        place = panel["gridPos"]
        assert min(place["x"], place["y"]) >= 0
        assert min(place["w"], place["h"]) > 0
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < make_dashboard.WIDTH
                assert (x, y) not in taken, (panel["title"], taken.get((x, y)))
                taken[x, y] = panel["title"]


def test_every_runbook_says_when_why_and_what_to_do() -> None:
    pages = sorted(RUNBOOKS.glob("*.md"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for heading in ("## You see", "## Look", "## Do", "## Then"):
            assert heading in text, f"{page.name}: {heading}"


def test_prometheus_scrapes_what_compose_starts() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    scraped = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    for job in scraped:
        for target in job["static_configs"][0]["targets"]:
            name, _, port = target.partition(":")
            assert any(published.endswith(f":{port}") for published in services[name]["ports"])


def test_every_expression_is_promql() -> None:
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed: expressions were not parsed")
    panels = make_dashboard.dashboard()["panels"]
    expressions = [rule["expr"] for rule in RULES]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    for expression in expressions:
        parser.parse(expression)


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    fired = {
        name
        for case in cases
        for asked in case["promql_expr_test"]
        for sample in asked["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert fired == {rule["alert"] for rule in RULES}


def test_alerts_fire_as_their_cases_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (of Prometheus) is not installed; the GitHub workflow runs it")
    command = [promtool, "test", "rules", str(FOLDER / "alerts_test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
