"""A pickle can call functions: any that names more than containers is rejected before anything is called."""

import os
import pickle
import subprocess
from collections import OrderedDict, defaultdict

import pytest

from rap.data.plainpickle import load
from rap.errors import UserError


@pytest.fixture
def stored(tmp_path):
    def write(content: bytes):
        (tmp_path / "raw-captions.pkl").write_bytes(content)
        return tmp_path / "raw-captions.pkl"

    return write


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_and_text_are_read(stored, protocol):
    value = {
        "-a": [["é", "b"], ("c",)],
        "n": {1, 2.5, None},
        "o": OrderedDict(x=[]),
        "d": defaultdict(list, y=[1]),
    }
    assert load(stored(pickle.dumps(value, protocol))) == value


def test_byte_strings_of_python_2_are_text(stored):
    python2 = b"(dp0\nS'vid1'\np1\n(lp2\n(lp3\nS'caf\\xc3\\xa9'\np4\naas."
    assert load(stored(python2)) == {"vid1": [["café"]]}


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "function", [os.system, subprocess.Popen, eval, getattr, print, open], ids=lambda f: f.__name__
)
def test_a_pickle_that_calls_anything_is_rejected_and_nothing_is_called(stored, tmp_path, function, protocol):
    mark = tmp_path / "executed"
    evil = {"a": [["x"]], "b": Calls(function, f"touch {mark}")}
    with pytest.raises(UserError, match=r"raw-captions\.pkl: cannot be read: it names .* could execute code") as caught:
        load(stored(pickle.dumps(evil, protocol)))
    assert not mark.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps({"a": [["b"]]})[:-3],
        b"\x80\x63.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\n__import__\n(S'os'\ntR.",
        b"\x80\x04\x8c\x08builtins\x94\x8c\x11dict.__subclasses\x94\x93.",
        b"\x80\x02\x82\x01.",  # a name by number, from copyreg's registry
        b"Pa persistent id\n.",
        b"\x80\x02U\x04caf\xe9\x94.",  # a byte string that is not UTF-8
    ],
)
def test_damaged_or_indirect_pickles_are_one_line(stored, content):
    with pytest.raises(UserError, match=r"raw-captions\.pkl: cannot be read") as caught:
        load(stored(content))
    assert "\n" not in str(caught.value)
