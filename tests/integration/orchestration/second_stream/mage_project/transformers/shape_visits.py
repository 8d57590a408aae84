if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer


@transformer
def shape_visits(events, *args, **kwargs):
    """Decoded visits in the shape of core.visits."""
    from mage_project.transforms.plan import carry_plan

    names = ["topic", "topic_partition", "topic_offset", "event_day", "visit_id", "page", "seconds"]
    return carry_plan(
        events, events.select(names).rename_columns([n.replace("event_day", "visit_date") for n in names])
    )
