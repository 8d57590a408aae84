"""Mage projects on disk: what becomes of them, and what is told when they are wrong."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from orchestration.defs.topics import feeds, feeds_of, project
from orchestration.errors import MageSpecError
from orchestration.mage_assets import AssetOptions, build_mage_assets
from orchestration.mage_graph import picture, svg
from orchestration.mage_spec import EXTENSIONS, RUNNABLE, STORAGE, edited_pipelines, is_edited, load_project
from orchestration.mage_timeout import read_timeout

BLOCK = """@{kind}
def run(*args, **kwargs):
    return 1


@test
def test_one(output, *args) -> None:
    assert output == 1
"""


PARSE = ast.parse


class Scratch:
    """A Mage project made of a dictionary of blocks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "metadata.yaml").write_text("project_type: standalone\n")

    def pipeline(self, *blocks: dict[str, Any], name: str = "p", **fields: Any) -> Path:
        for block in blocks:
            folder = RUNNABLE.get(block["type"])
            if folder and block.pop("file", True):
                path = self.root / folder / f"{block['uuid']}.{'sql' if block.get('language') == 'sql' else 'py'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.pop("code", BLOCK.format(kind=block["type"])))
        path = self.root / "pipelines" / name / "metadata.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump({"blocks": list(blocks), "type": "python", "uuid": name, **fields}))
        return path


def block(uuid: str, kind: str = "transformer", *upstream: str, **fields: Any) -> dict[str, Any]:
    return {"uuid": uuid, "type": kind, "upstream_blocks": list(upstream), **fields}


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path)


def test_blocks_come_after_what_they_read(scratch: Scratch) -> None:
    scratch.pipeline(
        block("out", "data_exporter", "join"),
        block("join", "transformer", "left", "right"),
        block("right", "data_loader"),
        block("left", "data_loader"),
    )
    order = [each.uuid for each in load_project(scratch.root).pipeline("p").blocks]
    assert set(order[:2]) == {"left", "right"}
    assert order[2:] == ["join", "out"]


def test_exporters_are_the_outputs_and_name_their_tables(scratch: Scratch) -> None:
    scratch.pipeline(
        block("in", "data_loader"),
        block("a", "data_exporter", "in", configuration={"table": "core.a"}),
        block(
            "b", "data_exporter", "in", language="sql", code="select 1",
            configuration={"data_provider_schema": "public", "data_provider_table": "b"},
        ),
        block("c", "data_exporter", "in"),
    )  # fmt: skip
    assert [each.table for each in load_project(scratch.root).pipeline("p").outputs] == ["core.a", "public.b", None]


def test_without_exporters_the_last_blocks_are_the_outputs(scratch: Scratch) -> None:
    scratch.pipeline(
        block("in", "data_loader"), block("left", "transformer", "in"), block("right", "transformer", "in")
    )
    assert {each.uuid for each in load_project(scratch.root).pipeline("p").outputs} == {"left", "right"}


def test_tests_of_a_block_are_found_with_their_lines(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader"))
    [test] = load_project(scratch.root).pipeline("p").block("in").tests
    assert (test.name, test.line) == ("test_one", 7)


def test_a_test_only_warns_where_the_block_s_configuration_says_so(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader", configuration={"warning_tests": ["test_one"]}), block("out"))
    tests = {each.uuid: each.tests[0].only_warns for each in load_project(scratch.root).pipeline("p").blocks}
    assert tests == {"in": True, "out": False}
    [assets] = build_mage_assets(load_project(scratch.root))
    assert {spec.name: spec.blocking for spec in assets.check_specs} == {"in__test_one": False, "out__test_one": True}


@pytest.mark.parametrize(
    ("names", "told"), [(["test_two"], "the block's @test functions are: test_one"), ("test_one", "expected a list")]
)
def test_a_warning_test_that_does_not_exist_is_told_with_its_block_s_line(
    scratch: Scratch, names: object, told: str
) -> None:
    path = scratch.pipeline(block("in", "data_loader"), block("out", configuration={"warning_tests": names}))
    with pytest.raises(MageSpecError) as error:
        load_project(scratch.root)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "warning_tests" in text)
    assert f"{path}:{line - 1}: warning_tests" in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"retry_config": 3}, "retry_config is 3; expected a mapping"),
        ({"retry_config": {"retry": 3}}, "retry_config has retry; Mage knows retries, delay, max_delay, exp"),
        ({"retry_config": {"retries": "3"}}, "retries is '3'; expected a whole number from 0 on"),
        ({"retry_config": {"retries": True}}, "retries is True; expected a whole number from 0 on"),
        ({"retry_config": {"delay": -1}}, "delay is -1; expected seconds from 0 on"),
        ({"retry_config": {"max_delay": float("inf")}}, "max_delay is inf; expected seconds from 0 on"),
        ({"retry_config": {"exponential_backoff": 1}}, "exponential_backoff is 1; expected true or false"),
        ({"configuration": {"repeatable": "yes"}}, "repeatable is 'yes'; expected true or false"),
        ({"timeout": "soon"}, "timeout is 'soon'; expected whole seconds from 1 on, or null"),
        ({"timeout": -5}, "timeout is -5; expected whole seconds from 1 on, or null"),
    ],
)
def test_a_wrong_way_to_try_again_is_told_with_its_line(scratch: Scratch, fields: dict[str, Any], told: str) -> None:
    path = scratch.pipeline(block("in", "data_loader"), block("out", "data_exporter", "in", **fields))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if next(iter(fields)) in text)
    with pytest.raises(MageSpecError, match=rf"{re.escape(str(path))}:{line}: block out: .*{re.escape(told)}"):
        load_project(scratch.root)
    if "retry_config" in fields:
        root = scratch.root / "metadata.yaml"
        root.write_text(f"project_type: standalone\n{yaml.safe_dump(fields)}")
        with pytest.raises(MageSpecError, match=rf"{re.escape(str(root))}:2: .*{re.escape(told)}"):
            load_project(scratch.root)


def test_notes_beside_a_pipeline_are_no_blocks(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader"), block("note", "markdown"), block("try", "scratchpad"))
    assert [each.uuid for each in load_project(scratch.root).pipeline("p").blocks] == ["in"]


def test_a_missing_file_is_told_with_the_line_of_its_block(scratch: Scratch) -> None:
    path = scratch.pipeline(block("in", "data_loader"), block("lost", "transformer", "in", file=False))
    with pytest.raises(MageSpecError, match=r"its file .*lost\.py does not exist") as failure:
        load_project(scratch.root)
    assert failure.value.path == path
    assert failure.value.line is not None
    assert "lost" in "".join(
        path.read_text().splitlines(keepends=True)[failure.value.line - 1 : failure.value.line + 4]
    )


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (
            "{uuid: a, type: transformer, configuration: text}",
            "2: block a: configuration is 'text'; expected a mapping",
        ),
        ("{uuid: a, type: [x]}", "2: block a: type is ['x']; expected a text"),
        ("{uuid: [a], type: transformer}", "2: block ['a']: uuid is ['a']; expected a text"),
        ("{uuid: a, type: transformer, upstream_blocks: b}", "2: block a: upstream_blocks is 'b'; expected a list"),
        (
            "{uuid: a, type: transformer, upstream_blocks: [1]}",
            "2: block a: upstream_blocks is [1]; expected a list of",
        ),
        ("{uuid: a, type: transformer, language: 3}", "2: block a: language is 3; expected a text"),
        (
            "{uuid: a, type: transformer, configuration: {file_source: x.py}}",
            "2: block a: configuration.file_source is 'x.py'; expected a mapping",
        ),
        (
            "{uuid: a, type: markdown}\nvariables: {at: 2024-02-30}",
            "3: not valid YAML: '2024-02-30' is no value of times",
        ),
        ("{uuid: a, type: markdown}\nvariables: 3", "1: variables is 3; expected a mapping"),
        ("{uuid: a, type: markdown}\nextensions: {great_expectations: 1}", "1: extensions.great_expectations is 1;"),
        ("{uuid: a, type: markdown}\nblocks: []", "3: blocks stands here a second time, after line 1"),
    ],
)
def test_what_has_another_shape_than_mage_writes_is_told_with_its_line(
    scratch: Scratch, written: str, told: str
) -> None:
    path = scratch.root / "pipelines" / "p" / "metadata.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"blocks:\n- {written}\n")
    with pytest.raises(MageSpecError) as error:
        load_project(scratch.root)
    assert f"{path}:{told}" in str(error.value)


@pytest.mark.parametrize(
    "named", [{"table": ["a", "b"]}, {"table": "a.b", "data_provider": ["x"]}, {"partition_variable": True}]
)
def test_what_is_no_name_of_a_table_or_variable_is_told_with_its_block_s_line(
    scratch: Scratch, named: dict[str, Any]
) -> None:
    path = scratch.pipeline(block("out", "data_exporter", configuration=named))
    with pytest.raises(MageSpecError) as error:
        load_project(scratch.root)
    assert (error.value.path, error.value.line) == (path, 2)
    [(name, value)] = [each for each in named.items() if not isinstance(each[1], str)]
    assert f"block out: {name} is {value!r}; expected a text" in str(error.value)


def test_a_folder_in_the_place_of_a_pipelines_file_is_told(scratch: Scratch) -> None:
    path = scratch.root / "pipelines" / "p" / "metadata.yaml"
    path.mkdir(parents=True)
    with pytest.raises(MageSpecError, match="it cannot be read: Is a directory") as error:
        load_project(scratch.root)
    assert error.value.path == path


def test_a_link_to_nothing_among_the_modules_keeps_no_project_from_loading(scratch: Scratch) -> None:
    scratch.pipeline(block("out", "data_exporter"))
    before = load_project(scratch.root).pipeline("p").code_version
    (scratch.root / "utils").mkdir()
    (scratch.root / "utils" / ".#rules.py").symlink_to("someone@somewhere.4711:1")  # Emacs' lock of an edited file
    assert load_project(scratch.root).pipeline("p").code_version == before


def test_blocks_that_another_part_of_the_file_hands_in_are_read(scratch: Scratch) -> None:
    path = scratch.root / "pipelines" / "p" / "metadata.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("base: &base\n  blocks: [{uuid: note, type: markdown}]\n<<: *base\n")
    assert load_project(scratch.root).left_out == {"p": "it has no block that runs"}


@pytest.mark.parametrize("name", ["data_loader", "test"])
def test_an_async_function_that_mage_would_not_await_is_told_with_its_line(scratch: Scratch, name: str) -> None:
    code = BLOCK.format(kind="data_loader")
    scratch.pipeline(block("in", "data_loader", code=code.replace(f"@{name}\ndef", f"@{name}\nasync def")))
    with pytest.raises(MageSpecError, match=rf"in\.py:\d+: \w+ under @{name} is async"):
        load_project(scratch.root)


def test_a_ring_of_blocks_is_told(scratch: Scratch) -> None:
    scratch.pipeline(block("a", "transformer", "b"), block("b", "transformer", "a"))
    with pytest.raises(MageSpecError, match="in a ring: "):
        load_project(scratch.root)


def test_an_unknown_block_type_is_told(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_lover"))
    with pytest.raises(MageSpecError, match="unknown type 'data_lover'"):
        load_project(scratch.root)


def test_a_name_that_stands_twice_is_told(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader"), block("in", "data_loader"))
    with pytest.raises(MageSpecError, match="listed twice"):
        load_project(scratch.root)


@pytest.mark.parametrize("kind", ["markdown", "scratchpad"])
def test_a_block_that_reads_a_note_is_told_that_it_is_one(scratch: Scratch, kind: str) -> None:
    scratch.pipeline(block("note", kind), block("in", "data_loader", "note"))
    with pytest.raises(MageSpecError, match=rf"block in reads note, a {kind}.*take it out of the block's upstream_blo"):
        load_project(scratch.root)


def test_a_block_that_reads_nothing_known_is_told(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader", "ghost"))
    with pytest.raises(MageSpecError, match="reads ghost, which does not exist"):
        load_project(scratch.root)


def test_a_syntax_error_is_told_with_file_and_line(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader", code="x = 1\ndef broken(:\n"))
    with pytest.raises(MageSpecError, match="not valid Python") as failure:
        load_project(scratch.root)
    assert failure.value.path.name == "in.py"
    assert failure.value.line == 2


def test_a_second_function_that_mage_would_not_run_is_told_with_its_line(scratch: Scratch) -> None:
    code = "@transformer\ndef first(df):\n    return df\n\n\n@transformer\ndef second(df):\n    return df * 2\n"
    scratch.pipeline(block("in", "data_loader"), block("double", "transformer", "in", code=code))
    with pytest.raises(MageSpecError, match=r"double\.py:7: second is a second .*@transformer, after first on line 2"):
        load_project(scratch.root)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def plain():\n    return 1\n", r"in\.py:1: no function under @data_loader"),
        ("", r"in\.py:1: no function under @data_loader"),
        ("@test\ndef alone(df):\n    assert df\n", r"in\.py:1: no function under @data_loader"),
        ("x = 1\n\n\n@transformer\ndef moved(df):\n    return df\n", r"in\.py:5: moved is under @transformer: no"),
    ],
)
def test_a_block_that_mage_could_not_run_is_told_before_any_run(scratch: Scratch, code: str, told: str) -> None:
    scratch.pipeline(block("in", "data_loader", code=code))
    with pytest.raises(MageSpecError, match=told):
        load_project(scratch.root)


@pytest.mark.parametrize("name", ["data_loader", "test"])
def test_an_import_that_hides_mages_own_decorator_is_told(scratch: Scratch, name: str) -> None:
    hidden = f"from mage_ai.data_preparation.decorators import {name}\n"
    scratch.pipeline(block("in", "data_loader", code=hidden + BLOCK.format(kind="data_loader")))
    with pytest.raises(MageSpecError, match=rf"in\.py:1: this import hides Mage's own @{name}"):
        load_project(scratch.root)


@pytest.mark.parametrize(
    "code",
    [
        (
            "if 'data_loader' not in globals():\n    from mage_ai.data_preparation.decorators import data_loader\n"
            "if 'test' not in globals():\n    from mage_ai.data_preparation.decorators import test\n"
            "@data_loader\ndef load():\n    return 1\n@test\ndef one(out):\n    pass\n@test\ndef two(out):\n    pass\n"
        ),
        (
            "import os\nif os.environ.get('FAST'):\n    @data_loader\n    def load():\n        return 1\n"
            "else:\n    @data_loader\n    def load():\n        return 2\n"
        ),
        "def load():\n    return 1\n\n\ndata_loader(load)\n",
        "@preprocesser\ndef before():\n    pass\n\n\n@data_loader\ndef load():\n    return 1\n",
    ],
)
def test_what_mage_runs_is_left_alone(scratch: Scratch, code: str) -> None:
    scratch.pipeline(block("in", "data_loader", code=code))
    assert load_project(scratch.root).pipeline("p").block("in").path.read_text() == code


def test_files_in_another_encoding_are_told_with_their_name(scratch: Scratch) -> None:
    pipeline = scratch.pipeline(block("a", "data_loader"))
    code = scratch.root / "data_loaders" / "a.py"
    code.write_bytes(BLOCK.format(kind="data_loader").encode() + b"NAME = '\xe9'\n")
    with pytest.raises(MageSpecError, match=r"a\.py:9: not valid Python: .*no 0xe9 may stand here"):
        load_project(scratch.root)
    code.write_bytes(b"# -*- coding: latin-1 -*-\n" + code.read_bytes())
    with pytest.raises(MageSpecError, match=r"a\.py:10: not valid Python"):  # Mage does not look at that line
        load_project(scratch.root)
    code.write_bytes(b"\xef\xbb\xbf" + BLOCK.format(kind="data_loader").encode())
    with pytest.raises(MageSpecError, match=r"a\.py:1: it begins with a byte order mark"):
        load_project(scratch.root)
    code.write_text(BLOCK.format(kind="data_loader"))
    pipeline.write_bytes(pipeline.read_bytes() + b"description: '\xe9'\n")
    with pytest.raises(MageSpecError, match=r"metadata\.yaml.*not valid YAML"):
        load_project(scratch.root)


def test_pipeline_that_mage_would_look_for_in_another_folder_is_told(scratch: Scratch) -> None:
    scratch.pipeline(block("a", "data_loader"), name="here").write_text(
        yaml.safe_dump({"uuid": "elsewhere", "type": "python", "blocks": [block("a", "data_loader")]})
    )
    with pytest.raises(MageSpecError, match="its uuid is 'elsewhere', its folder 'here'"):
        load_project(scratch.root)


def test_yaml_that_cannot_be_read_is_told_with_its_line(scratch: Scratch) -> None:
    path = scratch.pipeline(block("in", "data_loader"))
    path.write_text("blocks:\n- uuid: a\n  type: [\n")
    with pytest.raises(MageSpecError, match="not valid YAML") as failure:
        load_project(scratch.root)
    assert failure.value.line is not None


def test_two_pipelines_that_write_one_table_are_told(scratch: Scratch) -> None:
    exporter = {"configuration": {"table": "core.a"}}
    scratch.pipeline(block("x", "data_exporter", **exporter), name="one")
    scratch.pipeline(block("y", "data_exporter", **exporter), name="two")
    with pytest.raises(MageSpecError, match=r"two/y writes core\.a, as does one/x"):
        load_project(scratch.root)


def sql_exporter(uuid: str, **configuration: str) -> dict[str, Any]:
    table = {"data_provider_schema": "public", "data_provider_table": "users"}
    return block(uuid, "data_exporter", language="sql", code="select 1", configuration={**table, **configuration})


@pytest.mark.parametrize(
    "other",
    [
        {"data_provider": "snowflake", "data_provider_profile": "default"},
        {"data_provider": "postgres", "data_provider_profile": "replica"},
        {"data_provider": "postgres", "data_provider_profile": "default", "data_provider_database": "other"},
    ],
)
def test_one_table_name_in_two_stores_is_two_assets(scratch: Scratch, other: dict[str, str]) -> None:
    scratch.pipeline(sql_exporter("x", data_provider="postgres", data_provider_profile="default"), name="one")
    scratch.pipeline(sql_exporter("y", **other), name="two")
    assets = dg.Definitions(assets=build_mage_assets(load_project(scratch.root))).resolve_asset_graph()
    assert {key.to_user_string() for key in assets.get_all_asset_keys()} == {"one/x", "two/y"}


def test_one_table_of_one_store_that_two_pipelines_write_is_told(scratch: Scratch) -> None:
    store = {"data_provider": "postgres", "data_provider_profile": "default"}
    scratch.pipeline(sql_exporter("x", **store), name="one")
    scratch.pipeline(sql_exporter("y", **store), name="two")
    with pytest.raises(MageSpecError, match=r"two/y writes public\.users, as does one/x"):
        load_project(scratch.root)


@pytest.mark.parametrize("pipeline", ["ventas_año", "my-pipe", "a.b", "Mi Pipe", "input", "plain"])
@pytest.mark.parametrize("exporter", ["sub/salida", "carga_año", "load-it", "a.b", "Load It", "plain"])
def test_any_name_that_mage_takes_becomes_one_of_dagster(scratch: Scratch, pipeline: str, exporter: str) -> None:
    scratch.pipeline(block("in", "data_loader"), block(exporter, "data_exporter", "in"), name=pipeline)
    [asset] = build_mage_assets(load_project(scratch.root))
    [key] = asset.keys
    assert [asset.op.name == pipeline, key.path[1] == exporter] == [
        pipeline == "plain",
        exporter in {"plain", "load-it", "a.b"},
    ]
    dg.Definitions(assets=[asset]).resolve_asset_graph()


def test_checks_of_two_blocks_have_two_names(scratch: Scratch) -> None:
    code = "@transformer\ndef run(*a, **k): ...\n@test\ndef {}(*a): ...\n"
    first, second = (block(name, code=code.format(test)) for name, test in (("a", "b__test_c"), ("a__b", "test_c")))
    scratch.pipeline(first, second, block("out", "data_exporter", "a", "a__b"))
    [asset] = build_mage_assets(load_project(scratch.root))
    assert sorted(each.name[:18] for each in asset.check_keys) == [
        "a__b__test_c_of_a_",
        "a__b__test_c_of_a_",
        "out__test_one",
    ]


def test_names_that_differ_to_mage_alone_stay_apart(scratch: Scratch) -> None:
    for name in ("a-b", "a_b"):
        scratch.pipeline(
            block("a-b", "data_loader"),
            block("a_b", "transformer", "a-b"),
            block("s/x", "data_exporter", "a_b"),
            block("s-x", "data_exporter", "a_b"),
            block("s_x", "data_exporter", "a_b"),
            name=name,
        )
    assets = build_mage_assets(load_project(scratch.root))
    assert {len(each.keys) for each in assets} == {3}
    assert {len(each.check_keys) for each in assets} == {5}
    assert len(dg.Definitions(assets=assets).resolve_asset_graph().get_all_asset_keys()) == 6


def test_partitions_of_which_no_block_would_be_told_are_refused(scratch: Scratch) -> None:
    path = scratch.pipeline(block("load", "data_loader"), block("out", "data_exporter", "load"))
    days = AssetOptions(partitions_def=dg.StaticPartitionsDefinition(["d1", "d2"]))
    with pytest.raises(MageSpecError, match="block out: its asset has partitions, and no output") as error:
        build_mage_assets(load_project(scratch.root), options=lambda *_: days)
    assert (error.value.path, error.value.line) == (path, 5)


@pytest.mark.parametrize("field", ["partition_variable", "last_partition_variable"])
def test_outputs_that_take_their_partition_from_two_variables_are_told(scratch: Scratch, field: str) -> None:
    scratch.pipeline(
        block("in", "data_loader"),
        block("first", "data_exporter", "in", configuration={field: "day"}),
        block("none", "data_exporter", "in"),
        block("second", "data_exporter", "in", configuration={field: "event_day"}),
    )
    with pytest.raises(MageSpecError, match=rf"metadata\.yaml:\d+: block second has the {field} event_day, .* has day"):
        load_project(scratch.root)


NESTED_TESTS = """
if FLAG:
    @test
    def test_first(*args) -> None:
        "Below a condition."
else:
    @test
    def test_first(*args) -> None: ...
try:
    import absent
except ImportError:
    @test
    def test_second(*args) -> None: ...

def not_called():
    @test
    def test_third(*args) -> None: ...
"""


def test_tests_below_a_condition_are_checks_too(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader", code=f"{BLOCK.format(kind='data_loader')}{NESTED_TESTS}"))
    [loader] = load_project(scratch.root).pipeline("p").blocks
    assert [(each.name, each.is_conditional) for each in loader.tests] == [
        ("test_one", False),
        ("test_first", True),
        ("test_second", True),
    ]
    assert loader.tests[1].description == "Below a condition."
    [asset] = build_mage_assets(load_project(scratch.root))
    assert {each.name for each in asset.check_keys} == {"in__test_one", "in__test_first", "in__test_second"}


def test_a_test_below_a_condition_that_mage_would_never_await_is_told(scratch: Scratch) -> None:
    nested = "if True:\n    @test\n    async def test_it(*args) -> None: ...\n"
    scratch.pipeline(block("in", "data_loader", code=f"{BLOCK.format(kind='data_loader')}{nested}"))
    with pytest.raises(MageSpecError, match=r"in\.py:11: test_it under @test is async"):
        load_project(scratch.root)


def test_each_block_s_file_is_parsed_once(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch.pipeline(block("in", "data_loader"), block("out", "data_exporter", "in"))
    parsed: list[Any] = []

    def parse(source: Any, *args: Any, **options: Any) -> Any:
        parsed.append(source)
        return PARSE(source, *args, **options)

    monkeypatch.setattr(ast, "parse", parse)
    load_project(scratch.root)
    assert len(parsed) == 2


def test_a_replica_runs_the_file_of_the_block_that_it_repeats(scratch: Scratch) -> None:
    source = {"file_path": "data_loaders/sub/load.py"}
    scratch.pipeline(
        block("sub/load", "data_loader"),
        block("load", "data_loader", file=False, configuration=source),
        block("again", "data_loader", file=False, replicated_block="load"),
        block("third", "data_loader", file=False, replicated_block="again"),
        block("plain", "data_loader", file=False, replicated_block="sub/load"),
    )
    files = {each.uuid: each.path for each in load_project(scratch.root).pipeline("p").blocks}
    assert set(files) == {"sub/load", "load", "again", "third", "plain"}
    assert set(files.values()) == {scratch.root / "data_loaders" / "sub" / "load.py"}


def test_replicas_of_each_other_are_told(scratch: Scratch) -> None:
    scratch.pipeline(
        block("a", "data_loader", file=False, replicated_block="b"),
        block("b", "data_loader", file=False, replicated_block="a"),
    )
    with pytest.raises(
        MageSpecError, match=r"metadata\.yaml:2: block a is a replica of itself; give one of a, b a file"
    ):
        load_project(scratch.root)


def test_a_project_by_a_relative_path_is_at_its_own(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch.pipeline(block("out", "data_exporter"))
    monkeypatch.chdir(scratch.root.parent)
    found = load_project(Path(scratch.root.name))
    assert found.root == scratch.root
    assert found.pipeline("p").block("out").path == scratch.root / "data_exporters" / "out.py"


def test_a_folder_that_is_no_project_is_told(tmp_path: Path) -> None:
    with pytest.raises(MageSpecError, match=r"metadata\.yaml.*not found"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": "streaming"}, "its type is streaming"),
        ({"conditionals": [{"uuid": "c"}]}, "it has conditionals"),
        ({"extensions": {"great_expectations": {"blocks": [{"uuid": "e"}]}}}, "blocks of the extension great_expect"),
    ],
)
def test_pipelines_that_only_mages_scheduler_can_run_are_left_out_with_the_reason(
    scratch: Scratch, fields: dict[str, Any], reason: str
) -> None:
    scratch.pipeline(block("in", "data_loader"), **fields)
    found = load_project(scratch.root)
    assert found.pipelines == ()
    assert reason in found.left_out["p"]


def test_a_block_with_a_callback_of_its_own_leaves_its_pipeline_out(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader", has_callback=True), name="p", extensions={})
    scratch.pipeline(
        block("on", "data_loader", has_callback=False), name="q", extensions={"great_expectations": {"blocks": []}}
    )
    found = load_project(scratch.root)
    assert [each.uuid for each in found.pipelines] == ["q"]
    assert "block in (line 2) has a callback" in found.left_out["p"]


def test_a_pipeline_of_ours_that_is_left_out_is_told(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scratch.pipeline(block("in", "data_loader", has_callback=True), name="visits")
    monkeypatch.setattr("mage_project.__path__", [str(scratch.root)])
    assert project.__wrapped__().pipelines == ()
    [told] = [each.getMessage() for each in caplog.records]
    assert told.startswith(
        "Mage pipeline visits is left out, no run loads what it writes: block in (line 2) has a call"
    )


def test_a_dynamic_block_leaves_its_pipeline_out(scratch: Scratch) -> None:
    scratch.pipeline(block("many", "data_loader", configuration={"dynamic": True}), block("one", "transformer", "many"))
    found = load_project(scratch.root)
    assert found.pipelines == ()
    assert "block many (line 2) is dynamic" in found.left_out["p"]


@pytest.mark.parametrize(
    ("language", "code", "told"),
    [
        ("r", "transform <- function(df_1) {\n  df_1\n}\n", "block other (line 5) is in R, which Mage gives what its"),
        ("yaml", "source: postgresql\n", "block other (line 5) is a data integration, which Mage gives"),
        (
            "python",
            "@data_integration_source\ndef source(*args):\n    return {}\n",
            "other.py:2) is a data integration",
        ),
    ],
)
def test_a_block_whose_frames_go_through_mages_storage_alone_leaves_its_pipeline_out(
    scratch: Scratch, language: str, code: str, told: str
) -> None:
    scratch.pipeline(block("in", "data_loader"), block("other", "transformer", "in", language=language, file=False))
    folder = scratch.root / "transformers"
    folder.mkdir()
    (folder / f"other.{EXTENSIONS[language]}").write_text(code)
    found = load_project(scratch.root)
    assert found.pipelines == ()
    assert told in found.left_out["p"]


def test_a_block_that_reads_what_mage_stored_of_an_earlier_run_leaves_its_pipeline_out(scratch: Scratch) -> None:
    code = "if True:\n    from mage_ai.data_preparation.variable_manager import {}\n" + BLOCK.format(kind="transformer")
    scratch.pipeline(block("in", "data_loader"), block("stale", "transformer", "in", code=code.format("get_variable")))
    scratch.pipeline(block("fine", "transformer", code=code.format("get_global_variable")), name="other")
    found = load_project(scratch.root)
    assert [each.uuid for each in found.pipelines] == ["other"]
    assert "block stale (" in found.left_out["p"]
    assert "stale.py:2) reads Mage's storage" in found.left_out["p"]


@pytest.mark.parametrize(
    ("imported", "used", "left_out"),
    [
        ("from mage_ai.data_preparation import variable_manager as stored", "stored.get_variable", ["p"]),
        (f"import {STORAGE}", f"{STORAGE}.get_variable", ["p"]),
        ("from mage_ai.data_preparation import variable_manager", "variable_manager.get_global_variable", []),
        ("import theirs", "theirs.get_variable", []),
    ],
)
def test_mages_storage_is_found_behind_its_module_too(
    scratch: Scratch, imported: str, used: str, left_out: list[str]
) -> None:
    run = BLOCK.format(kind="data_loader")
    code = f"{imported}\n{run}\ndef read():\n    return {used}('p', 'b', 'output_0')\n"
    scratch.pipeline(block("stale", "data_loader", code=code))
    assert list(load_project(scratch.root).left_out) == left_out


@pytest.mark.parametrize("blocks", [None, [], [block("note", "markdown"), block("try", "scratchpad")], "absent"])
def test_a_pipeline_without_a_block_that_runs_is_left_out_and_the_others_stay(scratch: Scratch, blocks: Any) -> None:
    scratch.pipeline(block("in", "data_loader"), name="whole")
    path = scratch.pipeline(name="new")
    fields = {"uuid": "new", "type": "python", **({} if blocks == "absent" else {"blocks": blocks})}
    path.write_text(yaml.safe_dump(fields))
    found = load_project(scratch.root)
    assert [each.uuid for each in found.pipelines] == ["whole"]
    assert found.left_out == {"new": "it has no block that runs"}


def test_the_code_version_follows_the_code(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader"))
    before = load_project(scratch.root).pipeline("p").code_version
    assert load_project(scratch.root).pipeline("p").code_version == before
    code = scratch.root / "data_loaders" / "in.py"
    code.write_text(code.read_text() + "x = 2\n")
    assert load_project(scratch.root).pipeline("p").code_version != before


def test_a_block_that_was_run_in_mages_ui_is_no_edit(scratch: Scratch) -> None:
    notes = {"all_upstream_blocks_executed": False, "status": "not_executed"}
    first = block("in", "data_loader", **notes | {"all_upstream_blocks_executed": True})
    path = scratch.pipeline(first, block("out", "data_exporter", "in", **notes), variables={"status": "not_executed"})
    found = load_project(scratch.root)
    text = path.read_text()
    path.write_text(text.replace("  status: not_executed", "  status: executed", 1))
    assert edited_pipelines(found) == []
    path.write_text(text.replace("all_upstream_blocks_executed: false", "all_upstream_blocks_executed: true"))
    assert edited_pipelines(found) == []
    path.write_text(text.replace("variables:\n  status: not_executed", "variables:\n  status: executed"))
    assert edited_pipelines(found) == ["p"]


@pytest.mark.parametrize(
    ("edit", "edited"),
    [
        ({"variables": {"x": 2}}, False),
        (
            {"blocks": [block("in", "data_loader"), block("out", "data_exporter", "in"), block("note", "markdown")]},
            False,
        ),
        ({"blocks": [block("in", "data_loader"), block("out", "data_exporter")]}, True),
        ({"blocks": [block("in", "data_loader"), block("out", "data_exporter", "in", timeout=9)]}, True),
        ({"blocks": [block("in", "data_loader")]}, True),
        ({"blocks": 7}, True),
    ],
)
def test_a_run_at_work_is_told_of_other_blocks_and_not_of_variables(
    scratch: Scratch, edit: dict[str, Any], *, edited: bool
) -> None:
    path = scratch.pipeline(block("in", "data_loader"), block("out", "data_exporter", "in"), variables={"x": 1})
    [pipeline] = load_project(scratch.root).pipelines
    assert not is_edited(scratch.root, pipeline)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **edit}))
    assert is_edited(scratch.root, pipeline) is edited


@pytest.mark.parametrize("edit", ["block", "module", "pipeline", "removed"])
def test_an_edit_since_the_project_was_read_is_seen(scratch: Scratch, edit: str) -> None:
    path = scratch.pipeline(block("in", "data_loader"), block("out", "data_exporter", "in"))
    found = load_project(scratch.root)
    assert edited_pipelines(found) == []
    changed = {
        "block": scratch.root / "data_loaders" / "in.py",
        "module": scratch.root / "rules.py",
        "pipeline": path,
        "removed": scratch.root / "data_exporters" / "out.py",
    }[edit]
    if edit == "removed":
        changed.unlink()
    else:
        with changed.open("a") as file:
            file.write("# a note\n")
    assert edited_pipelines(found) == ["p"]


def test_the_code_version_follows_modules_that_blocks_import_and_no_other_pipeline_s_blocks(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader"))
    scratch.pipeline(block("other", "data_loader"), name="q")
    rules = scratch.root / "transforms" / "rules.py"
    rules.parent.mkdir()
    rules.write_text("VAT = 20\n")
    before = {each.uuid: each.code_version for each in load_project(scratch.root).pipelines}
    rules.write_text("VAT = 21\n")
    after = {each.uuid: each.code_version for each in load_project(scratch.root).pipelines}
    assert [after[uuid] != before[uuid] for uuid in ("p", "q")] == [True, True]
    (scratch.root / "data_loaders" / "other.py").write_text(BLOCK.format(kind="data_loader") + "x = 2\n")
    for foreign in (".venv/lib/six.py", "env/lib/six.py", "scratchpads/try.py"):
        path = scratch.root / foreign
        path.parent.mkdir(parents=True)
        path.write_text("x = 1\n")
    (scratch.root / "env" / "pyvenv.cfg").touch()
    last = {each.uuid: each.code_version for each in load_project(scratch.root).pipelines}
    assert [last[uuid] != after[uuid] for uuid in ("p", "q")] == [False, True]


def test_the_code_version_follows_modules_behind_links_and_ends_where_these_lead_round(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader"))
    shared = scratch.root.parent / f"{scratch.root.name}_shared"
    (shared / "inner").mkdir(parents=True)
    rules = shared / "inner" / "rules.py"
    rules.write_text("VAT = 20\n")
    (shared / "inner" / "round").symlink_to(shared)
    (shared / "above").symlink_to(scratch.root)
    (scratch.root / "shared").symlink_to(shared)
    found = load_project(scratch.root)
    assert edited_pipelines(found) == []
    rules.write_text("VAT = 21\n")
    assert edited_pipelines(found) == ["p"]


@pytest.mark.parametrize("name", ["._rules.py", ".#rules.py"])
def test_what_a_system_puts_beside_a_module_is_none(scratch: Scratch, name: str) -> None:
    scratch.pipeline(block("in", "data_loader"))
    found = load_project(scratch.root)
    (scratch.root / name).write_bytes(b"\x00\x05\x16\x07")
    assert edited_pipelines(found) == []


def test_a_module_that_is_a_link_to_itself_is_none(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader"))
    found = load_project(scratch.root)
    (scratch.root / "rules.py").symlink_to("rules.py")
    assert edited_pipelines(found) == []
    assert load_project(scratch.root).pipelines == found.pipelines


def test_our_own_rules_are_part_of_their_pipeline_s_code_version(tmp_path: Path) -> None:
    root = tmp_path / "mage_project"
    shutil.copytree(project().root, root, ignore=shutil.ignore_patterns("__pycache__"))
    before = load_project(root).pipeline("retail_invoices").code_version
    assert before == project().pipeline("retail_invoices").code_version, "whatever the folder"
    rules = root / "transforms" / "retail.py"
    rules.write_text(rules.read_text() + "\n")
    assert load_project(root).pipeline("retail_invoices").code_version != before


def test_the_picture_names_every_block_and_escapes_it(scratch: Scratch) -> None:
    scratch.pipeline(block("in", "data_loader"), block("a<b", "data_exporter", "in"))
    drawn = svg(load_project(scratch.root).pipeline("p"))
    assert drawn.count("<rect") == 2
    assert "a&lt;b" in drawn
    assert picture(load_project(scratch.root).pipeline("p")).startswith("![blocks of p](data:image/svg+xml;base64,")


def test_a_name_that_is_too_long_for_its_box_keeps_its_ends(scratch: Scratch) -> None:
    name = "load_customers_from_the_erp_export_2024"
    scratch.pipeline(block(name, "data_loader"), block("out", "data_exporter", name))
    drawn = svg(load_project(scratch.root).pipeline("p"))
    assert f"<title>{name}</title>" in drawn
    assert ">load_customers_f…ort_2024</text>" in drawn


def test_our_loader_reads_for_the_table_that_our_exporter_writes() -> None:
    for pipeline in project().pipelines:
        tables = {each.configuration["table"] for each in pipeline.blocks if "table" in each.configuration}
        assert len(tables) == 1
    assert ("retail.invoices", "core.invoice_lines") in {(feed.topic, feed.table) for feed in feeds()}


def test_a_second_topic_of_one_core_table_is_told(scratch: Scratch) -> None:
    """The table's days could never agree with both topics' landing."""
    path = scratch.pipeline(
        block("left", "data_loader", configuration={"topic": "a.b"}),
        block("right", "data_loader", configuration={"topic": "c.d"}),
        block("out", "data_exporter", "left", "right", configuration={"table": "core.t"}),
    )
    with pytest.raises(MageSpecError, match=r"p/metadata\.yaml: p reads topics a\.b and c\.d for core\.t"):
        feeds_of(load_project(scratch.root))
    path.write_text(path.read_text().replace("c.d", "a.b"))
    assert {(feed.topic, feed.table) for feed in feeds_of(load_project(scratch.root))} == {("a.b", "core.t")}


def test_our_pipelines_are_saved_in_the_form_in_which_mage_saves_them() -> None:
    for path in (project().root / "pipelines").glob("*/metadata.yaml"):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_dump(yaml.safe_load(text)) == text, (
            f"{path}: save it in Mage's UI, or write yaml.safe_dump of it"
        )


@pytest.mark.parametrize(("value", "seconds"), [(None, None), ("", None), (0, None), (90, 90), ("90", 90)])
def test_a_blocks_timeout_is_read_as_mages_scheduler_reads_it(value: object, seconds: int | None) -> None:
    assert read_timeout(value) == seconds
