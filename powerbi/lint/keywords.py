"""Which objects and properties TMDL knows under which object, as far as this project uses the format. Data only.

An unknown word is most often a slip that the service refuses, or worse, takes for something else.
"""

# ruff: noqa: E501 - lists of words

from __future__ import annotations

_COMMON = {"annotation", "extendedProperty", "lineageTag", "sourceLineageTag", "changedProperty"}
KNOWN: dict[str, set[str]] = {
    "database": {"compatibilityLevel", "id", "compatibilityMode", "language"},
    "model": _COMMON
    | {
        "culture", "defaultPowerBIDataSourceVersion", "discourageImplicitMeasures", "sourceQueryCulture",
        "dataAccessOptions", "defaultMode", "directLakeBehavior", "description", "defaultMeasure",
    },
    "dataAccessOptions": {"legacyRedirects", "returnErrorValuesAsNull", "fastCombine"},
    "table": _COMMON
    | {
        "column", "measure", "partition", "hierarchy", "refreshPolicy", "dataCategory", "isHidden", "isPrivate",
        "showAsVariationsOnly", "excludeFromModelRefresh", "alternateSourcePrecedence", "calculationGroup",
    },
    "column": _COMMON
    | {
        "dataType", "isHidden", "isKey", "isUnique", "isNullable", "isAvailableInMdx", "formatString", "displayFolder",
        "summarizeBy", "sourceColumn", "sortByColumn", "dataCategory", "isDefaultLabel", "isNameInferred",
        "isDataTypeInferred", "encodingHint", "variation", "sourceProviderType", "alternateOf",
    },
    "measure": _COMMON
    | {
        "formatString", "displayFolder", "isHidden", "formatStringDefinition", "detailRowsDefinition", "dataCategory",
        "isSimpleMeasure", "kpi",
    },
    "partition": {"mode", "source", "dataView", "queryGroup", "annotation", "entityName", "expressionSource"},
    "refreshPolicy": {
        "policyType", "rollingWindowGranularity", "rollingWindowPeriods", "incrementalGranularity", "incrementalPeriods",
        "incrementalPeriodsOffset", "pollingExpression", "sourceExpression", "mode",
    },
    "relationship": _COMMON
    | {
        "fromColumn", "toColumn", "isActive", "crossFilteringBehavior", "securityFilteringBehavior", "fromCardinality",
        "toCardinality", "joinOnDateBehavior", "relyOnReferentialIntegrity",
    },
    "role": _COMMON | {"modelPermission", "tablePermission", "member", "description"},
    "tablePermission": {"columnPermission", "metadataPermission", "annotation"},
    "expression": _COMMON | {"kind", "queryGroup", "expressionSource", "parameterValuesColumn"},
    "cultureInfo": {"linguisticMetadata", "translations", "annotation"},
    "hierarchy": _COMMON | {"level", "isHidden", "displayFolder"},
    "level": _COMMON | {"column", "ordinal"},
}  # fmt: skip
OBJECTS = {
    "annotation", "extendedProperty", "column", "measure", "partition", "hierarchy", "level", "refreshPolicy", "tablePermission",
    "dataAccessOptions",
}  # fmt: skip
VALUES: dict[tuple[str, str], set[str]] = {
    ("column", "dataType"): {"string", "int64", "double", "decimal", "dateTime", "boolean"},
    ("column", "summarizeBy"): {"none", "sum", "average", "count", "distinctCount", "min", "max", "default"},
    ("partition", "mode"): {"import", "directQuery", "dual", "directLake", "default"},
    ("refreshPolicy", "policyType"): {"basic"},
    ("refreshPolicy", "rollingWindowGranularity"): {"day", "month", "quarter", "year"},
    ("refreshPolicy", "incrementalGranularity"): {"day", "month", "quarter", "year"},
    ("refreshPolicy", "mode"): {"import", "hybrid"},
    ("relationship", "crossFilteringBehavior"): {"oneDirection", "bothDirections", "automatic"},
    ("role", "modelPermission"): {"none", "read", "readRefresh", "refresh", "administrator"},
}
ROOTS = set(KNOWN) - {
    "tablePermission",
    "refreshPolicy",
    "dataAccessOptions",
    "column",
    "measure",
    "partition",
    "hierarchy",
    "level",
}

# Roles of a visual's query that Power BI knows for the visual types of this report.
VISUALS: dict[str, set[str]] = {
    "card": {"Values"},
    "clusteredColumnChart": {"Category", "Series", "Y", "Tooltips", "Gradient"},
    "columnChart": {"Category", "Series", "Y", "Tooltips", "Gradient"},
    "clusteredBarChart": {"Category", "Series", "Y", "Tooltips", "Gradient"},
    "barChart": {"Category", "Series", "Y", "Tooltips", "Gradient"},
    "lineChart": {"Category", "Series", "Y", "Y2", "Tooltips"},
    "areaChart": {"Category", "Series", "Y", "Tooltips"},
    "lineClusteredColumnComboChart": {"Category", "Series", "Y", "Y2", "Tooltips"},
    "donutChart": {"Category", "Series", "Y", "Tooltips"},
    "tableEx": {"Values"},
    "pivotTable": {"Rows", "Columns", "Values"},
    "slicer": {"Values"},
    "textbox": set(),
}
# Types that Power BI knows and this report does not use; they are no slip, but are not drawn by the stand-in.
OTHER_VISUALS = {
    "multiRowCard", "cardVisual", "kpi", "gauge", "pieChart", "treemap", "map", "filledMap", "scatterChart", "waterfallChart",
    "ribbonChart", "funnel", "stackedAreaChart", "hundredPercentStackedBarChart", "hundredPercentStackedColumnChart",
    "lineStackedColumnComboChart", "decompositionTreeVisual", "keyDriversVisual", "advancedSlicerVisual", "listSlicer",
    "textSlicer", "image", "shape", "basicShape", "actionButton", "bookmarkNavigator", "pageNavigator", "azureMap",
}  # fmt: skip
