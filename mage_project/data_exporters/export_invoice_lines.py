import os

if "data_exporter" not in globals():
    from mage_ai.data_preparation.decorators import data_exporter
if "test" not in globals():
    from mage_ai.data_preparation.decorators import test


@data_exporter
def export_invoice_lines(lines, *args, **kwargs):
    """Write the rows to the table named in the block's configuration, in one fenced transaction."""
    from mage_project.writing import export_lines

    return export_lines(lines, kwargs, os.environ)


@test
def test_no_more_rows_inserted_than_read(report, *args) -> None:
    inserted, read = report["rows_inserted"], report["rows_read"]
    assert inserted <= read, f"{read} events read, {inserted} rows inserted"
