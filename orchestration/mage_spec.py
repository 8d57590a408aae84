"""A Mage project as it is written down: pipelines, blocks, their order, their tests.

Belongs here: reading pipelines/*/metadata.yaml and the blocks' files, and refusing what is wrong with file and line.
Not here: Mage itself (never imported here, so that definitions load in a moment), Dagster, running anything.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import functools
import hashlib
import os
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import yaml
from yaml.constructor import ConstructorError

from orchestration.errors import MageSpecError
from orchestration.mage_retry import retry_problem
from orchestration.mage_timeout import read_timeout, timeout_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Block types that pass data on, and the folder of each. Others are notes beside the pipeline and are left out.
RUNNABLE = {
    "data_loader": "data_loaders",
    "transformer": "transformers",
    "data_exporter": "data_exporters",
    "custom": "custom",
    "sensor": "sensors",
}
# Folders of blocks at a project's root; those of the types that are left out among them.
BLOCK_FOLDERS = frozenset(
    {*RUNNABLE.values(), "callbacks", "charts", "conditionals", "dbt", "extensions", "pipelines", "scratchpads"}
)
NOTES = frozenset({"scratchpad", "markdown", "chart", "extension"})
# These decide whether or how often other blocks run; a chain that ignored them would be wrong in silence.
UNSUPPORTED = frozenset(
    {"callback", "conditional", "dbt", "dynamic_child", "global_data_product", "group", "hook", "pipeline"}
)
# Languages whose blocks hand frames on through Mage's storage alone, which a run in this process does not fill.
THROUGH_STORAGE = {"r": "is in R", "yaml": "is a data integration"}
STORAGE = "mage_ai.data_preparation.variable_manager"
INTEGRATION = "data_integration_"  # how Mage's decorators of them begin
READS_STORAGE = frozenset({"get_variable", "VariableManager"})
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_STORE = ("data_provider", "data_provider_profile", "data_provider_database")
_NAMING = (
    *_STORE,
    "table",
    "data_provider_schema",
    "data_provider_table",
    "partition_variable",
    "last_partition_variable",
)
EXTENSIONS = {"python": "py", "sql": "sql", "yaml": "yaml", "r": "r"}


@dataclass(frozen=True, kw_only=True)
class TestSpec:
    """A function under `@test` in a block's file.

    `only_warns` where the block's configuration names it under `warning_tests`: told, and the run goes on.
    `is_conditional` where it stands below an `if`, `try` or the like: a run that does not define it has none.
    """

    __test__ = False  # pytest would take it for a test of its own

    name: str
    line: int
    description: str | None
    only_warns: bool = False
    is_conditional: bool = False


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One block: where its code is, what it reads, how it is configured.

    `storage_line` is where it imports what reads Mage's storage, `integration_line` where a data integration begins.
    """

    uuid: str
    type: str
    language: str
    upstream: tuple[str, ...]
    configuration: Mapping[str, Any]
    path: Path
    line: int
    tests: tuple[TestSpec, ...]
    storage_line: int | None = None
    integration_line: int | None = None
    retry_config: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: int | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be tried again: an exporter may have written, and says so if that is no harm."""
        return self.type != "data_exporter" or self.configuration.get("repeatable") is True

    @property
    def table(self) -> str | None:
        """The table that an exporter says it writes, as schema.table."""
        if self.configuration.get("table"):
            return str(self.configuration["table"])
        name = self.configuration.get("data_provider_table")
        schema = self.configuration.get("data_provider_schema")
        if name is None:
            return None
        return f"{schema}.{name}" if schema else str(name)

    @property
    def store(self) -> tuple[Any, ...]:
        """Where that table is, as far as the block says: one name in two stores is two tables."""
        return tuple(self.configuration.get(field) for field in _STORE)


@dataclass(frozen=True, kw_only=True)
class PipelineSpec:
    """One pipeline; its blocks in an order in which each comes after what it reads.

    `files_version` is of its blocks' files and the project's modules alone, `code_version` of its own file as well.
    """

    uuid: str
    description: str | None
    variables: Mapping[str, Any]
    blocks: tuple[BlockSpec, ...]
    path: Path
    code_version: str
    files_version: str = ""

    def block(self, uuid: str) -> BlockSpec:
        """The block of that name."""
        return next(block for block in self.blocks if block.uuid == uuid)

    @property
    def outputs(self) -> tuple[BlockSpec, ...]:
        """The blocks whose result outlives a run: exporters; without any, the blocks that nothing reads."""
        exporters = tuple(block for block in self.blocks if block.type == "data_exporter")
        read = {uuid for block in self.blocks for uuid in block.upstream}
        return exporters or tuple(block for block in self.blocks if block.uuid not in read)

    @property
    def partition_variable(self) -> str | None:
        """The runtime variable that names the day, where a block's configuration declares one."""
        return self._declared("partition_variable")

    @property
    def last_partition_variable(self) -> str | None:
        """The variable for the last of several days, where the pipeline can take a range of them in one pass."""
        return self._declared("last_partition_variable")

    def _declared(self, name: str) -> str | None:
        return next((str(block.configuration[name]) for block in self.outputs if block.configuration.get(name)), None)


@dataclass(frozen=True, kw_only=True)
class MageProject:
    """A Mage project's pipelines, and those that cannot become assets with the reason."""

    root: Path
    pipelines: tuple[PipelineSpec, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def pipeline(self, uuid: str) -> PipelineSpec:
        """The pipeline of that name."""
        return next(pipeline for pipeline in self.pipelines if pipeline.uuid == uuid)


def load_project(root: Path) -> MageProject:
    """Read every pipeline of the project at `root`.

    Raises:
        MageSpecError: a file is missing or wrong; the first one found, with its line.
    """
    root = root.absolute()  # Mage takes a relative path for one below its own project, and finds no block's file there
    if not (root / "metadata.yaml").is_file():
        raise MageSpecError(root / "metadata.yaml", None, "not found; a Mage project has this file at its root")
    _refuse_retries(root / "metadata.yaml")
    pipelines: list[PipelineSpec] = []
    left_out: dict[str, str] = {}
    for path in sorted((root / "pipelines").glob("*/metadata.yaml")):
        document = _Document.read(path)
        uuid = str(document.fields.get("uuid") or path.parent.name)
        if uuid != path.parent.name:
            problem = f"its uuid is {uuid!r}, its folder {path.parent.name!r}; Mage finds a pipeline by its folder"
            raise MageSpecError(path, None, problem)
        reason = _why_left_out(document)
        if reason is None:
            pipeline = _pipeline(root, document, uuid)
            reason = _why_its_code_leaves_out(pipeline)
        if reason is None:
            pipelines.append(pipeline)
        else:
            left_out[uuid] = reason
    _refuse_shared_tables(pipelines)
    return MageProject(root=root, pipelines=tuple(pipelines), left_out=left_out)


def edited_pipelines(project: MageProject) -> list[str]:
    """The pipelines whose files, or modules that they may import, are others than when the project was read."""
    return [pipeline.uuid for pipeline in project.pipelines if _is_edited(project.root, pipeline)]


def _is_edited(root: Path, pipeline: PipelineSpec) -> bool:
    blocks = {block.uuid: block for block in pipeline.blocks}
    try:
        return _code_version(root, pipeline.path, blocks) != pipeline.code_version
    except OSError:  # removed, or just being saved
        return True


def is_edited(root: Path, pipeline: PipelineSpec) -> bool:
    """Whether what runs is another than when the pipeline was read: its blocks, what they read, modules.

    Its variables are not looked at: a run has those of its beginning, and a block may set one for the next run
    (`set_global_variable`), for which Mage writes the whole file anew.
    """
    blocks = {block.uuid: block for block in pipeline.blocks}
    try:
        if _hash_of_files(root, blocks) != pipeline.files_version:
            return True
        listed = [fields for fields, _ in _Document.read(pipeline.path).blocks() if fields.get("type") not in NOTES]
    except (OSError, MageSpecError):  # removed, or just being saved
        return True
    now = {
        str(fields["uuid"]): (
            str(fields.get("type")),
            _language(fields),
            tuple(fields.get("upstream_blocks") or ()),
            dict(fields.get("configuration") or {}),
            dict(fields.get("retry_config") or {}),
            read_timeout(fields.get("timeout")),
        )
        for fields in listed
    }
    return now != {
        block.uuid: (
            block.type,
            block.language,
            block.upstream,
            dict(block.configuration),
            dict(block.retry_config),
            block.timeout_s,
        )
        for block in pipeline.blocks
    }


def _refuse_retries(path: Path) -> None:
    """The project's own `retry_config`, for all its blocks; what is no YAML before Mage has filled it in, it reads."""
    with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
        fields = yaml.safe_load(text)
        problem = retry_problem(fields.get("retry_config")) if isinstance(fields, dict) else None
        if problem:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            raise MageSpecError(path, _line_of(node, "retry_config"), problem)


def _line_of(node: yaml.Node | None, name: str) -> int | None:
    """The line on which a field of a mapping stands."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((key.start_mark.line + 1 for key, _ in pairs if key.value == name), None)


@dataclass(frozen=True)
class _Document:
    """A pipeline's YAML: its values, and the line on which each block starts."""

    path: Path
    fields: Mapping[str, Any]
    block_lines: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> _Document:
        try:
            text = path.read_text(encoding="utf-8")
            fields = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except OSError as error:
            raise MageSpecError(path, None, f"it cannot be read: {error.strerror}") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            raise MageSpecError(path, line, f"not valid YAML: {error.problem}") from error
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise MageSpecError(path, None, f"not valid YAML: {error}") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("blocks") or [], list):
            raise MageSpecError(path, 1, "expected a mapping with a list named blocks")
        problem = _shape_problem(fields, _PIPELINE_SHAPES)
        if problem:
            raise MageSpecError(path, 1, problem)
        lines = _block_lines(path, node)
        if len(lines) != len(fields.get("blocks") or ()):  # blocks that another part of the file hands in (`<<`)
            lines = [1] * len(fields["blocks"])
        return cls(path, fields, tuple(lines))

    def blocks(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Each block's fields with its line."""
        for block, line in zip(self.fields.get("blocks") or (), self.block_lines, strict=True):
            if not isinstance(block, dict) or not block.get("uuid"):
                raise MageSpecError(self.path, line, "a block without a uuid")
            problem = _shape_problem(block, _BLOCK_SHAPES) or retry_problem(block.get("retry_config"))
            problem = problem or timeout_problem(block.get("timeout"))
            if problem is None and not all(isinstance(each, str) for each in block.get("upstream_blocks") or ()):
                problem = f"upstream_blocks is {block['upstream_blocks']!r}; expected a list of names"
            if problem:
                raise MageSpecError(self.path, line, f"block {block['uuid']}: {problem}")
            yield block, line


class _Loader(yaml.SafeLoader):
    """PyYAML's, which raises a bare ValueError for a date such as 2024-02-30: here it names the line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's own
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            problem = f"{getattr(node, 'value', None)!r} is no value of {node.tag.rpartition(':')[2]}: {error}"
            raise ConstructorError(None, None, problem, node.start_mark) from error


# What Mage writes under these names; anything else would be a Python error somewhere, without file and line.
_PIPELINE_SHAPES = {"uuid": str, "type": str, "description": str, "variables": dict, "extensions": dict}
_BLOCK_SHAPES = {
    "uuid": str,
    "type": str,
    "language": str,
    "configuration": dict,
    "upstream_blocks": list,
    "replicated_block": str,
}
_CALLED: Mapping[type, str] = {str: "a text", dict: "a mapping", list: "a list"}


def _shape_problem(fields: Mapping[str, Any], shapes: Mapping[str, type]) -> str | None:
    for name, shape in shapes.items():
        value = fields.get(name)
        if value is not None and not isinstance(value, shape):
            return f"{name} is {value!r}; expected {_CALLED[shape]}"
    inner = {
        **{f"extensions.{name}": value for name, value in (fields.get("extensions") or {}).items()},
        "configuration.file_source": (fields.get("configuration") or {}).get("file_source"),
    }
    wrong = next((each for each in inner.items() if each[1] is not None and not isinstance(each[1], dict)), None)
    return f"{wrong[0]} is {wrong[1]!r}; expected a mapping" if wrong else None


def _block_lines(path: Path, node: yaml.Node | None) -> list[int]:
    """The line of each block."""
    lists = [pair for pair in (node.value if isinstance(node, yaml.MappingNode) else ()) if pair[0].value == "blocks"]
    if len(lists) > 1:
        first, second = (pair[0].start_mark.line + 1 for pair in lists[:2])
        raise MageSpecError(path, second, f"blocks stands here a second time, after line {first}; only one would count")
    listed = [found.value for _, found in lists if isinstance(found, yaml.SequenceNode)]
    return [child.start_mark.line + 1 for found in listed for child in found]


def _why_left_out(document: _Document) -> str | None:
    """Why a pipeline is not made into assets, or None: being left out is not an error of the project."""
    kind = document.fields.get("type") or "python"
    if kind != "python":
        return f"its type is {kind}; only batch pipelines of type python end in a table of a day"
    for name in ("callbacks", "conditionals"):
        if document.fields.get(name):
            return f"it has {name}, which decide what runs; the chain in process would ignore them"
    for name, extension in (document.fields.get("extensions") or {}).items():
        if extension.get("blocks"):
            return f"it has blocks of the extension {name}, which check frames; the chain in process would ignore them"
    reasons = (_why_block_leaves_out(block, line) for block, line in document.blocks())
    reason = next(filter(None, reasons), None)
    if reason is None and all(block.get("type") in NOTES for block, _ in document.blocks()):
        return "it has no block that runs"
    return reason


_GIVEN_FROM_STORAGE = (
    "which Mage gives what its storage holds: "
    "nothing of a run in this process, or the frame of an earlier run in Mage's UI"
)


def _why_block_leaves_out(block: Mapping[str, Any], line: int) -> str | None:
    place = f"block {block['uuid']} (line {line})"
    if block.get("type") in UNSUPPORTED:
        return f"{place} is of type {block['type']}, which only Mage's scheduler runs"
    if block.get("has_callback"):
        return f"{place} has a callback, which only Mage's scheduler runs"
    if (block.get("configuration") or {}).get("dynamic"):
        return f"{place} is dynamic: only Mage's scheduler runs others as often as it says"
    if block.get("type") in RUNNABLE and _language(block) in THROUGH_STORAGE:
        return f"{place} {THROUGH_STORAGE[_language(block)]}, {_GIVEN_FROM_STORAGE}"
    return None


def _why_its_code_leaves_out(pipeline: PipelineSpec) -> str | None:
    """Why a pipeline is left out one of whose blocks asks Mage's storage, which only Mage's own runs fill."""
    for block in pipeline.blocks:
        if block.integration_line is not None:
            place = f"block {block.uuid} ({block.path}:{block.integration_line})"
            return f"{place} {THROUGH_STORAGE['yaml']}, {_GIVEN_FROM_STORAGE}"
        if block.storage_line is not None:
            return (
                f"block {block.uuid} ({block.path}:{block.storage_line}) reads Mage's storage, which holds nothing of "
                "a run in this process: it would be given the frame of an earlier run in Mage's UI"
            )
    return None


def _pipeline(root: Path, document: _Document, uuid: str) -> PipelineSpec:
    blocks: dict[str, BlockSpec] = {}
    listed = {fields["uuid"]: fields for fields, _ in document.blocks()}
    notes = {uuid: str(fields["type"]) for uuid, fields in listed.items() if fields.get("type") in NOTES}
    for fields, line in document.blocks():
        kind = str(fields.get("type"))
        if kind in NOTES:
            continue
        if kind not in RUNNABLE:
            raise MageSpecError(document.path, line, f"block {fields['uuid']} has the unknown type {kind!r}")
        if fields["uuid"] in blocks:
            raise MageSpecError(document.path, line, f"block {fields['uuid']} is listed twice")
        path = _block_path(root, _written_as(document.path, fields, line, listed))
        blocks[fields["uuid"]] = _block(document.path, fields, line, path)
    pipeline = PipelineSpec(
        uuid=uuid,
        description=document.fields.get("description"),
        variables=dict(document.fields.get("variables") or {}),
        blocks=_in_order(document.path, blocks, notes),
        path=document.path,
        code_version=_code_version(root, document.path, blocks),
        files_version=_hash_of_files(root, blocks),
    )
    _refuse_other_than_names(pipeline)
    _refuse_two_variables_of_one_day(pipeline)
    return pipeline


def _block(pipeline_path: Path, fields: Mapping[str, Any], line: int, path: Path) -> BlockSpec:
    configuration = dict(fields.get("configuration") or {})
    language = _language(fields)
    if language not in EXTENSIONS:
        raise MageSpecError(pipeline_path, line, f"block {fields['uuid']} has the unknown language {language!r}")
    if not isinstance(configuration.get("repeatable", False), bool):
        problem = f"block {fields['uuid']}: repeatable is {configuration['repeatable']!r}; expected true or false"
        raise MageSpecError(pipeline_path, line, problem)
    if not path.is_file():
        raise MageSpecError(pipeline_path, line, f"block {fields['uuid']}: its file {path} does not exist")
    tree = _parsed(path) if language == "python" else None
    tests = () if tree is None else _tests_of(path, tree, str(fields["type"]))
    return BlockSpec(
        uuid=str(fields["uuid"]),
        type=str(fields["type"]),
        language=language,
        upstream=tuple(fields.get("upstream_blocks") or ()),
        configuration=configuration,
        path=path,
        line=line,
        tests=_with_warnings(tests, configuration, pipeline_path, line),
        storage_line=None if tree is None else _storage_line(tree),
        integration_line=None if tree is None else _integration_line(tree),
        retry_config=dict(fields.get("retry_config") or {}),
        timeout_s=read_timeout(fields.get("timeout")),
    )


def _with_warnings(
    tests: Sequence[TestSpec], configuration: Mapping[str, Any], pipeline_path: Path, line: int
) -> tuple[TestSpec, ...]:
    """The tests, those that the configuration lists under `warning_tests` marked."""
    names = configuration.get("warning_tests") or []
    if not isinstance(names, list):
        raise MageSpecError(
            pipeline_path, line, f"warning_tests is {names!r}; expected a list of names of @test functions"
        )
    unknown = [name for name in names if name not in {test.name for test in tests}]
    if unknown:
        known = ", ".join(test.name for test in tests) or "none"
        problem = f"warning_tests names {', '.join(map(str, unknown))}; the block's @test functions are: {known}"
        raise MageSpecError(pipeline_path, line, problem)
    return tuple(replace(test, only_warns=test.name in names) for test in tests)


def _language(fields: Mapping[str, Any]) -> str:
    return str(fields.get("language") or "python")


def _written_as(
    pipeline_path: Path, fields: Mapping[str, Any], line: int, listed: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The block whose file Mage runs for this one: itself, or the one of its pipeline that it is a replica of."""
    original, passed = fields, {fields["uuid"]}
    while original.get("replicated_block") in listed:
        original = listed[original["replicated_block"]]
        if original["uuid"] in passed:
            problem = f"block {fields['uuid']} is a replica of itself; give one of {', '.join(sorted(passed))} a file"
            raise MageSpecError(pipeline_path, line, problem)
        passed.add(original["uuid"])
    return original


def _block_path(root: Path, fields: Mapping[str, Any]) -> Path:
    configuration = fields.get("configuration") or {}
    source = (configuration.get("file_source") or {}).get("path") or configuration.get("file_path")
    if source:
        return root / str(source) if (root / str(source)).exists() else root.parent / str(source)
    extension = EXTENSIONS.get(_language(fields), "")
    return root / RUNNABLE.get(str(fields.get("type")), "") / f"{fields['uuid']}.{extension}"


def _parsed(path: Path) -> ast.Module:
    """A block's code. Mage reads it as UTF-8 and hands Python the text, so that what names another encoding fails."""
    code = path.read_bytes()
    try:
        text = code.decode()
    except UnicodeDecodeError as error:
        line, byte = code.count(b"\n", 0, error.start) + 1, f"0x{code[error.start]:02x}"
        problem = f"not valid Python: Mage reads it as UTF-8, in which no {byte} may stand here; save it as UTF-8"
        raise MageSpecError(path, line, problem) from error
    if text.startswith("\N{ZERO WIDTH NO-BREAK SPACE}"):
        problem = "it begins with a byte order mark, with which Mage fails in each run; save it as UTF-8 without one"
        raise MageSpecError(path, 1, problem)
    try:
        return ast.parse(text, filename=str(path))
    except SyntaxError as error:
        raise MageSpecError(path, error.lineno, f"not valid Python: {error.msg}") from error
    except (
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # the latter two of an expression that is nested too deep
        raise MageSpecError(path, None, f"not valid Python: {error or type(error).__name__}") from error


def _storage_line(tree: ast.Module) -> int | None:
    """The line that imports a reader of Mage's storage, or its module where the block calls a reader on it."""
    has_reader = any(isinstance(node, ast.Attribute) and node.attr in READS_STORAGE for node in ast.walk(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            names = {each.name for each in node.names}
        else:
            continue
        if (STORAGE in names and has_reader) or any(f"{STORAGE}.{reader}" in names for reader in READS_STORAGE):
            return node.lineno
    return None


def _integration_line(tree: ast.Module) -> int | None:
    """The line of a function that makes the block a data integration."""
    return next(
        (
            node.lineno
            for node, _ in _executed(tree)
            if isinstance(node, FUNCTIONS) and any(name.startswith(INTEGRATION) for name in _decorators(node))
        ),
        None,
    )


def _tests_of(path: Path, tree: ast.Module, kind: str) -> tuple[TestSpec, ...]:
    """A Python block's tests, once it is sure that Mage would run its one function."""
    _refuse_hidden_decorators(path, tree, kind)
    _refuse_async(path, tree, kind)
    _refuse_other_than_one(path, tree, kind)
    return tuple(_tests(path, tree))


def _refuse_hidden_decorators(path: Path, tree: ast.Module, kind: str) -> None:
    """Mage puts its decorators into a block's globals; what is imported under their names only looks like them."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "mage_ai.data_preparation.decorators":
            for name in node.names:
                if (name.asname or name.name) in {kind, "test"}:
                    problem = (
                        f"this import hides Mage's own @{name.asname or name.name}, and what is under it never runs"
                    )
                    cure = f"write `if '{name.name}' not in globals():` before it, as Mage's templates do"
                    raise MageSpecError(path, node.lineno, f"{problem}; {cure}")


def _refuse_async(path: Path, tree: ast.Module, kind: str) -> None:
    """Mage awaits nothing: a test would pass unrun, a block hand on what nobody has computed."""
    for node, _ in _executed(tree):
        if isinstance(node, ast.AsyncFunctionDef) and {kind, "test"} & _decorators(node):
            named = " and ".join(f"@{name}" for name in sorted({kind, "test"} & _decorators(node)))
            problem = f"{node.name} under {named} is async, and Mage does not await it: its body would never run"
            raise MageSpecError(path, node.lineno, problem)


def _refuse_other_than_one(path: Path, tree: ast.Module, kind: str) -> None:
    """Of several decorated functions Mage runs the first without a word; without any it fails, but only in a run.

    A decorator below an `if` may or may not be reached: one of them is enough, and several are no error.
    """
    decorated = [node for node in tree.body if _is_decorated(node, kind)]
    if len(decorated) > 1:
        first, second = decorated[:2]
        names = f"{second.name} is a second function under @{kind}, after {first.name} on line {first.lineno}"
        raise MageSpecError(path, second.lineno, f"{names}; Mage would run {first.name} alone, without a word")
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if kind in used or any(name.startswith(INTEGRATION) for name in used):
        return
    problem = f"no function under @{kind}, which is this block's type in its pipeline; Mage would fail in each run"
    wrong = next(((n, other) for n in tree.body for other in RUNNABLE if _is_decorated(n, other)), None)
    if wrong is not None:
        node, other = wrong
        raise MageSpecError(path, node.lineno, f"{node.name} is under @{other}: {problem}")
    raise MageSpecError(path, 1, problem)


def _tests(path: Path, tree: ast.Module) -> Iterator[TestSpec]:
    """Every test that Mage would run; one of two below conditions that have one name, as in an `if` and its `else`."""
    seen: dict[str, TestSpec] = {}
    for node, is_nested in _executed(tree):
        if not _is_decorated(node, "test"):
            continue
        test = TestSpec(name=node.name, line=node.lineno, description=ast.get_docstring(node), is_conditional=is_nested)
        first = seen.setdefault(test.name, test)
        if first is test:
            yield test
        elif not (first.is_conditional and test.is_conditional):
            raise MageSpecError(path, test.line, f"test {test.name} is defined twice, first on line {first.line}")


def _executed(node: ast.AST, *, is_nested: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """The statements that running a block's file may run, and whether each stands below another one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child, is_nested
        if isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)) and not isinstance(child, FUNCTIONS):
            yield from _executed(child, is_nested=True)


def _is_decorated(node: ast.stmt, name: str) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and name in _decorators(node)


def _decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    functions = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return {each.id for each in functions if isinstance(each, ast.Name)}


def _in_order(path: Path, blocks: Mapping[str, BlockSpec], notes: Mapping[str, str]) -> tuple[BlockSpec, ...]:
    for block in blocks.values():
        for upstream in block.upstream:
            if upstream in notes:
                problem = (
                    f"block {block.uuid} reads {upstream}, a {notes[upstream]}, which runs nothing and hands nothing on"
                )
                raise MageSpecError(path, block.line, f"{problem}; take it out of the block's upstream_blocks")
            if upstream not in blocks:
                raise MageSpecError(path, block.line, f"block {block.uuid} reads {upstream}, which does not exist")
    try:
        sorter = TopologicalSorter({uuid: block.upstream for uuid, block in blocks.items()})
        sorter.prepare()
    except CycleError as error:
        ring = error.args[1]
        line = blocks[ring[0]].line
        raise MageSpecError(path, line, f"blocks read each other in a ring: {' -> '.join(ring)}") from error
    return tuple(_exporters_late(sorter, blocks))


def _exporters_late(sorter: TopologicalSorter[str], blocks: Mapping[str, BlockSpec]) -> Iterator[BlockSpec]:
    """An exporter after every block that does not read it: whichever test fails, as little as can be is written."""
    read = {upstream for block in blocks.values() for upstream in block.upstream}
    ready: list[BlockSpec] = []
    while sorter.is_active():
        ready += [blocks[uuid] for uuid in sorter.get_ready()]
        ready.sort(key=lambda block: (block.type == "data_exporter", block.uuid not in read))
        block = ready.pop(0)
        yield block
        sorter.done(block.uuid)


def _code_version(root: Path, path: Path, blocks: Mapping[str, BlockSpec]) -> str:
    """A short hash of the pipeline, its blocks and the project's own modules, which any of them may import.

    It changes when the code in Mage's folder does. Other pipelines' blocks are no part of it.
    """
    return _hash_of_files(root, blocks, _without_notes(path.read_bytes()))


def _hash_of_files(root: Path, blocks: Mapping[str, BlockSpec], metadata: bytes = b"") -> str:
    digest = hashlib.sha256(metadata)
    for uuid in sorted(blocks):
        digest.update(blocks[uuid].path.read_bytes())
    for module in _modules(root):
        try:
            content = module.read_bytes()
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ELOOP}:  # a link to nothing or to itself, or just renamed
                continue
            raise
        digest.update(f"\n{module.relative_to(root).as_posix()}\n".encode() + content)
    return digest.hexdigest()[:12]


@functools.lru_cache(maxsize=256)  # a run that keeps its day up asks again and again
def _without_notes(metadata: bytes) -> bytes:
    """A pipeline's file as if no block had run in Mage's UI, which notes there of each whether it has.

    To look at a block's rows there is no edit: it would show every day as made by older code.
    """
    try:
        text = metadata.decode()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return metadata
    fields = dict(_fields_of(node))
    listed = fields["blocks"].value if isinstance(fields.get("blocks"), yaml.SequenceNode) else ()
    notes: dict[int, tuple[int, str]] = {}
    for block in map(dict, map(_fields_of, listed)):
        upstream = block.get("upstream_blocks")
        is_first = not (isinstance(upstream, yaml.SequenceNode) and upstream.value)
        for name, note in (("status", "not_executed"), ("all_upstream_blocks_executed", str(is_first).lower())):
            if isinstance(block.get(name), yaml.ScalarNode):
                notes[block[name].start_mark.index] = (block[name].end_mark.index, note)
    for start, (end, note) in sorted(notes.items(), reverse=True):
        text = text[:start] + note + text[end:]
    return text.encode()


def _fields_of(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        yield str(name.value), value


def _modules(root: Path) -> Iterator[Path]:
    """The Python files of a project that are no blocks, in one order; without what is hidden, and environments.

    Hidden are macOS' `._rules.py` and Emacs' `.#rules.py` too: no name that can be imported begins with a dot. What
    blocks import may be behind a link; a folder that several links lead to, one above it perhaps, is read once.
    """
    passed = {os.path.realpath(root)}
    for name, inner, files in os.walk(root, followlinks=True):
        folder = Path(name)
        inner[:] = sorted(each for each in inner if not _is_foreign(folder / each, root))
        for each in list(inner):
            where = os.path.realpath(folder / each)
            if where in passed:
                inner.remove(each)
            passed.add(where)
        yield from (folder / each for each in sorted(files) if each.endswith(".py") and not each.startswith("."))


def _is_foreign(folder: Path, root: Path) -> bool:
    is_of_blocks = folder.parent == root and folder.name in BLOCK_FOLDERS
    return is_of_blocks or folder.name.startswith(".") or (folder / "pyvenv.cfg").is_file()


def _refuse_other_than_names(pipeline: PipelineSpec) -> None:
    """What names an output's table or variables; a list there would become a name of brackets and quotes."""
    for block in pipeline.outputs:
        for name in _NAMING:
            value = block.configuration.get(name)
            if isinstance(value, (list, dict, bool)):
                problem = f"block {block.uuid}: {name} is {value!r}; expected a text"
                raise MageSpecError(pipeline.path, block.line, problem)


def _refuse_two_variables_of_one_day(pipeline: PipelineSpec) -> None:
    """All outputs of a pipeline are written in one pass, for one partition."""
    names = {
        "partition_variable": pipeline.partition_variable,
        "last_partition_variable": pipeline.last_partition_variable,
    }
    for field_name, first in names.items():
        for block in pipeline.outputs:
            name = block.configuration.get(field_name)
            if name and str(name) != first:
                problem = (
                    f"block {block.uuid} has the {field_name} {name}, another of the pipeline's outputs has {first}"
                )
                raise MageSpecError(pipeline.path, block.line, f"{problem}; give both one name")


def _refuse_shared_tables(pipelines: list[PipelineSpec]) -> None:
    owner: dict[tuple[Any, ...], str] = {}
    for pipeline in pipelines:
        for block in pipeline.outputs:
            if block.table is None:
                continue
            name, table = f"{pipeline.uuid}/{block.uuid}", (block.table, *block.store)
            if table in owner:
                raise MageSpecError(pipeline.path, block.line, f"{name} writes {block.table}, as does {owner[table]}")
            owner[table] = name
