"""The small ways in which a module's code can be wrong.

mutmut leaves out every decorated function, and cosmic-ray can't leave out a statement, so neither
would show that a check is tested: these are our own, over the syntax tree.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Mutant(NamedTuple):
    """A module with one thing changed; `name` tells which, and stays when other lines move."""

    name: str
    line: int
    lines: frozenset[int]  # whoever reaches none of them doesn't meet the change
    source: str


_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_NAMED = {"any": "all", "all": "any", "min": "max", "max": "min"}

# A statement that does something, and is not the name of something.
_DONE = (ast.Expr, ast.AugAssign, ast.Raise, ast.Delete, ast.Continue, ast.Break)

_NONE, _NOTHING = ast.Constant(None), ast.Tuple([], ast.Load())
_YES, _NO = ast.Constant(True), ast.Constant(False)


def mutants(source: str) -> list[Mutant]:
    """All of a module, in the order of its lines."""
    tree = ast.parse(source)
    whole = ast.unparse(tree)
    made, names = list[Mutant](), Counter[str]()
    for change in _Changes(tree).all():
        with change.made():
            code = ast.unparse(tree)
        if code == whole:
            continue
        names[change.name] += 1
        number = names[change.name]
        name = f"{change.name}  [{number}]" if number > 1 else change.name
        made.append(Mutant(name, change.line, change.lines, code))
    return sorted(made, key=lambda one: one.line)


class _Change(NamedTuple):
    """`new` in the place of a child of `parent`: in its field, or in a list that is its field."""

    scope: str
    lines: frozenset[int]
    parent: ast.AST
    field: str
    at: int | None
    new: ast.AST | None

    @property
    def old(self) -> ast.AST:
        child = getattr(self.parent, self.field)
        return child if self.at is None else child[self.at]  # type: ignore[no-any-return]

    @property
    def line(self) -> int:
        return getattr(self.old, "lineno", min(self.lines, default=1))

    @property
    def name(self) -> str:
        """What is changed, in one line."""
        old, new = _told(self.old), "nothing" if self.new is None else _told(self.new)
        if isinstance(self.old, ast.cmpop | ast.operator):
            old = _told(self.parent)
            with self.made():
                new = _told(self.parent)
        return f"{self.scope}: {old} -> {new}"

    @contextmanager
    def made(self) -> Iterator[None]:
        before = getattr(self.parent, self.field)
        if self.at is None:
            setattr(self.parent, self.field, self.new)
        else:
            middle = [] if self.new is None else [self.new]
            setattr(self.parent, self.field, before[: self.at] + middle + before[self.at + 1 :])
        try:
            yield
        finally:
            setattr(self.parent, self.field, before)


def _told(node: ast.AST) -> str:
    match node:
        case ast.With(items) | ast.AsyncWith(items):
            return f"with {', '.join(map(ast.unparse, items))}"
        case ast.If(ast.Constant(True)):
            return "its body"
        case ast.match_case(pattern):
            return f"case {ast.unparse(pattern)}"
        case ast.keyword():
            return f"{node.arg or '**'}={ast.unparse(node.value)}"
        case ast.BoolOp() | ast.Compare() | ast.BinOp() | ast.IfExp():
            return f"({' '.join(ast.unparse(node).split())})"
        case _:
            return " ".join(ast.unparse(node).split())


class _Changes:
    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._scope: list[str] = []
        self._lines: frozenset[int] = frozenset()

    def all(self) -> Iterator[_Change]:
        yield from self._within(self._tree)

    @property
    def _in_function(self) -> bool:
        return bool(self._scope) and not self._scope[-1].lstrip("_")[0].isupper()

    def _within(self, node: ast.AST) -> Iterator[_Change]:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
                continue
            children = value if isinstance(value, list) else [value]
            for number, child in enumerate(children):
                if isinstance(child, ast.AST):
                    index = number if isinstance(value, list) else None
                    yield from self._of(node, field, index, child)

    def _of(
        self, parent: ast.AST, field: str, index: int | None, node: ast.AST
    ) -> Iterator[_Change]:
        if _says_nothing(node):
            return
        before = self._lines
        if isinstance(node, ast.stmt):
            self._lines = frozenset((node.lineno,))
        if isinstance(node, ast.expr | ast.ExceptHandler):
            last = node.lineno if isinstance(node, ast.ExceptHandler) else node.end_lineno
            self._lines |= frozenset(range(node.lineno, (last or node.lineno) + 1))
        for new in self._instead(parent, field, node):
            yield self._change(parent, field, index, new)
        if not isinstance(node, ast.Raise):  # which error it is, and its words
            before_scope = self._scope
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._scope = [*before_scope, node.name]
            yield from self._inside(node)
            yield from self._within(node)
            self._scope = before_scope
        self._lines = before

    def _change(
        self, parent: ast.AST, field: str, index: int | None, new: ast.AST | None
    ) -> _Change:
        scope = ".".join(self._scope) or "module"
        return _Change(scope, self._lines, parent, field, index, new)

    def _instead(self, parent: ast.AST, field: str, node: ast.AST) -> Iterator[ast.AST]:
        """What could be there in the place of a node."""
        if isinstance(node, _DONE) and not isinstance(parent, ast.Module | ast.ClassDef):
            yield ast.Pass()
        if field == "test" or (field == "ifs" and isinstance(parent, ast.comprehension)):
            yield _NO
            if not isinstance(parent, ast.While):
                yield _YES
        elif field == "iter":
            yield _NOTHING
        elif field == "body" and isinstance(parent, ast.Lambda):
            yield _NONE
        match node:
            case ast.Return(ast.expr() as value) if not (_is(value, None) or _is(value, False)):
                yield ast.Return(_NONE)
            case ast.With(items, body) if items[0].optional_vars is None:
                yield ast.If(_YES, body, [])
            case ast.AsyncWith(items, body) if items[0].optional_vars is None:
                yield ast.If(_YES, body, [])
            case ast.UnaryOp(ast.Not(), operand):
                yield operand
            case ast.Constant(bool() as value):
                yield ast.Constant(not value)
            case ast.Constant(int() as value):
                yield from (ast.Constant(value + 1), ast.Constant(value - 1))
            case ast.Constant(str() as value):
                yield ast.Constant(f"{value}x")
            case ast.Constant(bytes() as value):
                yield ast.Constant(value + b"x")
            case ast.Name(str() as name) if name in _NAMED:
                yield ast.Name(_NAMED[name], ast.Load())
            case ast.BoolOp(op, values):
                for index in range(len(values)):
                    rest = values[:index] + values[index + 1 :]
                    yield rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
            case _:
                pass

    def _inside(self, node: ast.AST) -> Iterator[_Change]:
        """What could be there in the place of a part of a node."""
        match node:
            case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                if self._in_function and not (_is(value, None) or _is(value, False)):
                    yield self._change(node, "value", None, _NONE)
            case ast.Compare(ops=ops):
                for index, op in enumerate(ops):
                    for new in _COMPARED[type(op)]:
                        yield self._change(node, "ops", index, new())
            case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _COMPUTED:
                yield self._change(node, "op", None, _COMPUTED[type(op)]())
            case ast.Call(keywords=keywords):
                for index, _ in enumerate(keywords):
                    yield self._change(node, "keywords", index, None)
            case ast.ExceptHandler(type=ast.expr() as kind):
                yield self._change(node, "type", None, _NOTHING)
                if isinstance(kind, ast.Tuple):
                    for index, _ in enumerate(kind.elts):
                        yield self._change(kind, "elts", index, None)
            case ast.Match(cases=cases) if len(cases) > 1:
                for index, _ in enumerate(cases):
                    yield self._change(node, "cases", index, None)
            case _:
                pass


def _is(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _says_nothing(node: ast.AST) -> bool:
    """Whether it is only for who reads the code, or the words of a message."""
    match node:
        case ast.Expr(ast.Constant()) | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.AnnAssign(annotation=ast.Name("TypeAlias")):
            return True
        case ast.Assign(targets=[ast.Name("__slots__")]):
            return True
        case _:
            return False
