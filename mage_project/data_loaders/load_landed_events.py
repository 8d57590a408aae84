import os

if "data_loader" not in globals():
    from mage_ai.data_preparation.decorators import data_loader
if "test" not in globals():
    from mage_ai.data_preparation.decorators import test


@data_loader
def load_landed_events(*args, **kwargs):
    """Landed events of `day` (to `last_day`) that the table does not hold yet: one row per event, payload still raw JSON."""
    from mage_project.reading import read_landed

    return read_landed(kwargs, os.environ)


@test
def test_each_event_is_read_once(events, *args) -> None:
    from mage_project.reading import distinct_events

    distinct = distinct_events(events)
    assert distinct == events.num_rows, f"{events.num_rows} rows read, {distinct} distinct (topic partition, offset)"
