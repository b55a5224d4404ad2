"""The strings under fields, which become what ``kubectl explain`` says.

Fields are described by a string literal below them, as in

    ttl: Duration | None = None
    \"\"\"How old a value may be …\"\"\"

Pydantic can collect these itself, at import and for each class anew; the operator, the command line and
every step container would pay for that at each start. Here a module is parsed once, and only when a schema is
wanted.
"""

import ast
import inspect
import sys
from functools import cache


def field_descriptions(cls: type) -> dict[str, str]:
    """Field name to description, the class's own before those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= _module_docs(base.__module__).get(base.__qualname__, {})
    return found


@cache
def _module_docs(module: str) -> dict[str, dict[str, str]]:
    if not module.startswith(__package__ or ""):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _class_docs(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _class_docs(node: ast.ClassDef) -> dict[str, str]:
    docs: dict[str, str] = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = inspect.cleandoc(text)
    return docs
