"""What `mutants.py` draws: the program as it is but for one place, and it compiles."""

import ast

import mutants


def test_each_mutant_is_the_program_with_one_change():
    drawn = mutants.draw(25, seed=1)
    assert len({mutant for mutant, _ in drawn}) == 25
    for mutant, text in drawn:
        source = (mutants.ROOT / mutant.file).read_text(encoding="utf-8")
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source))
        assert text.splitlines()[: mutant.line - 1] == source.splitlines()[: mutant.line - 1]


def test_tests_are_named_as_pytest_names_them():
    contexts = ["test_mutants.test_each_mutant_is_the_program_with_one_change", "", "test_gone.test_nothing"]
    assert mutants.node_ids(contexts) == [
        "tests/test_mutants.py::test_each_mutant_is_the_program_with_one_change"
    ]
