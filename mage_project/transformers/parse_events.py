import os

if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer
if "test" not in globals():
    from mage_ai.data_preparation.decorators import test


@transformer
def parse_events(events, *args, **kwargs):
    """The contract's typed columns, one row per event; prices Decimal(38,9), instants UTC."""
    from mage_project.reading import parse_events as parse

    return parse(events, os.environ)


@test
def test_no_event_is_lost(lines, *args) -> None:
    from mage_project.transforms.plan import plan_of

    read = plan_of(lines).rows_read
    assert lines.num_rows == read, f"{read} events read, {lines.num_rows} parsed"
