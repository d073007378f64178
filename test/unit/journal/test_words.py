"""Words of descriptions become quoted terms of a query: nothing in them is syntax."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.journal.words import MAX_TERMS, indexed_text, query_phrases, query_terms


@pytest.mark.parametrize(
    ("description", "terms"),
    [
        ("a person carries something", ["person", "carries"]),
        ("Where did you last see the RED box?", ["last", "red", "box"]),
        ("box, box. BOX", ["box"]),
        ("who is it?", ["who", "is", "it"]),  # there are no other words
        ('say "AND" NOT near* (x) col:umn', ["say", "not", "near", "x", "col:umn"]),
        ('six"inch', ['six""inch']),
        ("? … --", []),
        ("", []),
        ("红色的球", ["红", "色", "的", "球"]),
        ("re\u0301sume\u0301", ["résumé"]),
        ("a\0b", ["b"]),
    ],
)
def test_description_becomes_quoted_terms(description, terms):
    assert query_terms(description) == tuple(f'"{term}"' for term in terms)


def test_long_description_uses_its_first_words():
    assert len(query_terms(" ".join(f"word{number}" for number in range(1000)))) == MAX_TERMS


@given(st.text(max_size=60))
def test_every_description_is_a_valid_query(description):
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'porter unicode61')")
        connection.execute("INSERT INTO words (text) VALUES (?)", (indexed_text(description),))
        for joined in (" AND ".join(query_terms(description)), " OR ".join(query_terms(description))):
            found = connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (joined,)) if joined else None
            assert found is None or found.fetchone()[0] in (0, 1)


@pytest.mark.parametrize(
    ("description", "phrases"),
    [
        ("a red box on the table", ('"red" + "box"', '"table"')),
        ("box", ('"box"',)),
        ("who is it?", ('"who" + "is" + "it"',)),
        ("the box, a box", ('"box"',)),
        ('NOT "near*"', ('"not" + "near"',)),
        ("?", ()),
    ],
)
def test_words_that_follow_each_other_become_phrases(description, phrases):
    assert query_phrases(description) == phrases
