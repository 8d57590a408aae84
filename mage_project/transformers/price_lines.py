if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer
if "test" not in globals():
    from mage_ai.data_preparation.decorators import test


@transformer
def price_lines(lines, *args, **kwargs):
    """Rows of core.invoice_lines: amount_gbp = quantity x unit_price_gbp, exact; one row per event."""
    from mage_project.transforms import lines as rules

    return rules.price_lines(lines)


@test
def test_no_line_is_lost(lines, *args) -> None:
    from mage_project.transforms.plan import plan_of

    read = plan_of(lines).rows_read
    assert lines.num_rows == read, f"{read} events read, {lines.num_rows} priced"


@test
def test_amounts_are_quantity_times_price(lines, *args) -> None:
    from mage_project.transforms.lines import first_wrong_amount

    wrong = first_wrong_amount(lines)
    assert wrong is None, f"amount_gbp differs from quantity x unit_price_gbp: {wrong}"


@test
def test_every_line_belongs_to_a_day_of_the_run(lines, *args) -> None:
    from mage_project.transforms.plan import plan_of

    days = {each.day for each in plan_of(lines).days}
    others = set(lines["invoice_date"].unique().to_pylist()) - days
    assert not others, f"read for {min(days)} to {max(days)}, holds {sorted(map(str, others))[:5]}"
