"""The environment table and Context."""
import subprocess
import sys

import pytest

from glassgrad.engine.context import BEAM, DEBUG, TABLE, VARIABLES, Context, code_key, environment_table, getenv
from glassgrad.uop.errors import UsageError


def test_context_nests_and_restores():
    before = DEBUG.value
    with Context(DEBUG=3):
        assert DEBUG == 3 and DEBUG >= 2 and getenv("DEBUG") == 3
        with Context(DEBUG=1, BEAM=4): assert (DEBUG.value, BEAM.value) == (1, 4)
        assert (DEBUG.value, BEAM.value) == (3, 0)
    assert DEBUG.value == before


def test_context_decorates_and_restores_after_an_error():
    @Context(DEBUG=5)
    def fail(): raise KeyError(DEBUG.value)
    with pytest.raises(KeyError, match="5"): fail()
    assert DEBUG.value != 5


def test_one_context_object_can_be_entered_twice():
    twice = Context(BEAM=7)
    with twice:
        with twice: pass
        assert BEAM == 7
    assert BEAM == 0


@pytest.mark.parametrize("values, said", [(dict(DEBIG=1), "there is no variable DEBIG"), (dict(DEBUG="x"), "DEBUG is a number"),
                                          (dict(DEV=1), "DEV is a text")])
def test_context_errors(values, said):
    with pytest.raises(UsageError, match=said): Context(**values)


def test_code_key_follows_what_changes_code():
    before = code_key()
    with Context(DEBUG=2): assert code_key() == before
    with Context(BEAM=2): assert code_key() != before


def test_table_documents_every_variable():
    text = environment_table()
    assert all(f"`{row.name}`" in text for row in TABLE) and len(VARIABLES) == len(TABLE)


def test_bad_environment_is_named():
    run = subprocess.run([sys.executable, "-c", "import glassgrad.engine.context"], env={"DEBUG": "loud"}, capture_output=True, text=True)
    assert "DEBUG='loud'" in run.stderr and "DEBUG is a number" in run.stderr
