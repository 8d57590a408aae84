import os

if "data_exporter" not in globals():
    from mage_ai.data_preparation.decorators import data_exporter


@data_exporter
def export_visits(visits, *args, **kwargs):
    """Write the rows to the table named in the block's configuration, in one fenced transaction."""
    from mage_project.writing import export_lines

    return export_lines(visits, kwargs, os.environ)
