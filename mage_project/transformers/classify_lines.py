if "transformer" not in globals():
    from mage_ai.data_preparation.decorators import transformer
if "test" not in globals():
    from mage_ai.data_preparation.decorators import test


@transformer
def classify_lines(lines, *args, **kwargs):
    """Texts cleaned, kinds of invoice and line named, guests marked; one row per event."""
    from mage_project.transforms import lines as rules

    return rules.classify_lines(lines)


@test
def test_no_line_is_lost(lines, *args) -> None:
    from mage_project.transforms.plan import plan_of

    read = plan_of(lines).rows_read
    assert lines.num_rows == read, f"{read} events read, {lines.num_rows} classified"


@test
def test_every_line_has_a_kind(lines, *args) -> None:
    for column in ("invoice_kind", "line_kind"):
        missing = lines[column].null_count
        assert missing == 0, f"{missing} of {lines.num_rows} lines have no {column}"
