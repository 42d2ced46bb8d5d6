"""Values to typed objects; the first error becomes one line that names its path."""

import difflib
import types
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rap.errors import UserError

RENAMED = {"features.words": "features.max_words"}  # keys of params.yaml: the old name, the new one

Model = TypeVar("Model", bound=BaseModel)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]  # a part of paths, never a path
Count = Annotated[int, Field(gt=0, le=4096)]  # of frames, words, ranks: a larger value would fill the memory


class Section(BaseModel):
    """A group of keys: frozen, without unknown keys and without type conversion (YAML values are typed)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse(model: type[Model], values: Any, where: str) -> Model:
    """Validate `values` against `model`. Raises UserError, which names the path of the first error."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors()  # a misspelt key is also a missing key: the first error is more specific
        unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
        raise UserError(_printable(_explain((unknown or problems)[0], model, where))) from None


def hint(name: str, valid) -> str:
    """`; did you mean 'rank'?`, or the list of valid names."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(map(str, valid))}"


def _explain(problem: Any, model: type[BaseModel], where: str) -> str:
    *parents, key = problem["loc"] or ("",)
    path = ".".join(map(str, problem["loc"]))
    at = f"{where}: {path}" if path else where
    if problem["type"] == "extra_forbidden" and path in RENAMED:
        return f"{at}: this key is now {RENAMED[path]}; rename it"
    match problem["type"]:
        case "extra_forbidden":
            return f"{at}: unknown key{hint(key, _keys(model, parents))}"
        case "missing":
            return f"{at}: missing; add it"
        case "value_error":
            return f"{where}: {problem['ctx']['error']}"
        case _:
            return f"{at}: {problem['msg'][0].lower()}{problem['msg'][1:]}; found {_short(problem['input'])}"


def _printable(text: str) -> str:
    """The text with line breaks and other control characters escaped: a key may contain any."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number with more digits than Python prints
        text = "a very large number"
    return text if len(text) < 100 else f"{text[:80]}…"


def _keys(model: Any, path: list) -> list[str]:
    """The keys that a model accepts at a path."""
    for step in path:
        if get_origin(model) is dict:
            model = get_args(model)[1]
        elif get_origin(model) is tuple:
            model = get_args(model)[0]
        elif isinstance(model, type) and issubclass(model, BaseModel):
            model = next(f for name, f in model.model_fields.items() if step in (name, f.alias)).annotation
        if get_origin(model) in (Union, types.UnionType):
            model = next(option for option in get_args(model) if option is not type(None))
    return [field.alias or name for name, field in model.model_fields.items()]
